"""S3: where a bucket is, pyarrow's file system of it, and whole objects by one request each.

pyarrow's file system asks for the size of an object before it reads it, and writes one without any condition. Where
botocore is installed (`raylearn[s3]`), an object is read without the first, and written with the second.
"""

import errno
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any
from urllib.parse import parse_qsl, quote

CONNECTIONS = 256
"""To one bucket from one process, at most, by pyarrow and by botocore each."""

ATTEMPTS = 6  # of one request, with growing waits between them; refusals (403, 404) are not tried again
OPTIONS = ("region", "scheme", "endpoint_override", "anonymous")
_CONNECT_SECONDS, _READ_SECONDS = 5, 20
_TRIED_AGAIN = frozenset({408, 409, 429, 500, 502, 503, 504})


@dataclass(frozen=True)
class Bucket:
    """Where a bucket is.

    Args:
        name: of the bucket.
        region: of Amazon's.
        endpoint: of another store: an address, or a host with `scheme`.
        scheme: http or https.
        anonymous: requests are not signed.
    """

    name: str
    region: str
    endpoint: str | None
    scheme: str
    anonymous: bool

    @classmethod
    def of(cls, name: str, options: str) -> "Bucket":
        """By the options of an address, and the environment.

        Raises:
            ValueError, OSError: an option is not known, or nobody knows where the bucket is.
        """
        from pyarrow import fs

        given = dict(parse_qsl(options))
        unknown = given.keys() - set(OPTIONS)
        if unknown:
            raise ValueError(f"unknown option {min(unknown)!r}: known are {', '.join(OPTIONS)}")
        variables = os.environ
        endpoint = (
            given.get("endpoint_override") or variables.get("AWS_ENDPOINT_URL_S3") or variables.get("AWS_ENDPOINT_URL")
        )
        region = given.get("region") or variables.get("AWS_REGION") or variables.get("AWS_DEFAULT_REGION")
        return cls(
            name,
            region=region or ("us-east-1" if endpoint else fs.resolve_s3_region(name)),
            endpoint=endpoint,
            scheme=given.get("scheme", "https"),
            anonymous=given.get("anonymous", "").lower() == "true",
        )

    def file_system(self) -> Any:
        """pyarrow's."""
        import pyarrow as pa
        from pyarrow import fs

        # It has as many connections as there are threads for input when it is made.
        pa.set_io_thread_count(max(CONNECTIONS, pa.io_thread_count()))
        return fs.S3FileSystem(
            region=self.region,
            endpoint_override=self.endpoint,
            scheme=self.scheme,
            anonymous=self.anonymous,
            retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=ATTEMPTS),
            connect_timeout=_CONNECT_SECONDS,
            request_timeout=_READ_SECONDS,
            allow_delayed_open=True,  # what is small is put with one request
        )

    def objects(self) -> "Objects | None":
        """Whole objects, for many threads; None where botocore is not installed or finds no credentials.

        Raises:
            ValueError, OSError: a profile, a configuration file or an address cannot be used.
        """
        if find_spec("botocore") is None:
            return None
        with _as_os_errors():
            return self._objects()

    def _objects(self) -> "Objects | None":
        import botocore.session
        import urllib3
        from botocore import UNSIGNED
        from botocore.config import Config

        session = botocore.session.get_session()
        credentials = None if self.anonymous else session.get_credentials()
        if credentials is None and not self.anonymous:
            return None
        host = f"{self.scheme}://{self.endpoint}" if self.endpoint and "://" not in self.endpoint else self.endpoint
        # "auto" is s3.amazonaws.com here, which refuses buckets of younger regions and sends on to new buckets of any
        style = {"addressing_style": "path" if host else "virtual"}
        signature = UNSIGNED if self.anonymous else "s3v4"
        # pyarrow, which lists and writes, does not know of endpoints in a profile either
        config = Config(signature_version=signature, s3=style, ignore_configured_endpoint_urls=True)
        client = session.create_client("s3", region_name=self.region, endpoint_url=host, config=config)
        # botocore knows the host of every region: the address of an object, without its key and signature
        example = client.generate_presigned_url("get_object", Params={"Bucket": self.name, "Key": "key"})
        base = example.partition("?")[0].removesuffix("key")
        timeout = urllib3.Timeout(connect=_CONNECT_SECONDS, read=_READ_SECONDS)
        pool = urllib3.connection_from_url(base, maxsize=CONNECTIONS, block=True, timeout=timeout, retries=False)

        return Objects(self.name, self.region, base, pool, credentials)


class Objects:
    """The objects of a bucket, each read and written whole, by one request.

    Args:
        bucket, region: see Bucket.
        base: the address of an object, without its key.
        pool: urllib3's connections to its host.
        credentials: botocore's; None where requests are not signed.
    """

    def __init__(self, bucket: str, region: str, base: str, pool: Any, credentials: Any) -> None:
        self._bucket, self._region, self._base, self._pool, self._credentials = bucket, region, base, pool, credentials
        self._root = base[base.index("/", base.index("//") + 2) :]
        self._knows_conditions: bool | None = None  # nobody knows before the first object has been put

    def read(self, key: str) -> bytes:
        """All bytes; FileNotFoundError where there is no such object, and OSError for anything else."""
        return self.read_tagged(key)[0]

    def read_tagged(self, key: str) -> tuple[bytes, str]:
        """All bytes, and the tag that changes with them (ETag)."""
        status, data, tag, _ = self._request("GET", key)
        if status != 200:
            raise _error(status, data, self._bucket, key, "GetObject")
        return data, tag

    def put(self, key: str, data: bytes, replacing: str | None) -> str | None:
        """Writes an object if it is as it was.

        Args:
            key: of the object.
            data: its bytes.
            replacing: the tag it has to have; None where there must not be one.

        Returns:
            The new tag; None where the object is another by now, and stays.

        Raises:
            UnsupportedError: the store knows no conditions.
            OSError: it cannot be written.
        """
        if self._knows_conditions is False:
            raise UnsupportedError("the store knows no conditions")
        condition = {"If-None-Match": "*"} if replacing is None else {"If-Match": replacing}
        status, answer, tag, attempts = self._request("PUT", key, data, condition)
        if status == 200:
            if replacing is None and self._knows_conditions is None:
                # some stores take no notice of a condition: there the same once more, which has to fail, does not
                again, _, other_tag, _ = self._request("PUT", key, data, condition)
                if again in (200, 412):  # anything else tells nothing
                    self._knows_conditions = again == 412
                tag = other_tag if again == 200 else tag
            return tag
        if status == 501:
            self._knows_conditions = False
            raise UnsupportedError("the store knows no conditions")
        if status not in (404, 412):
            raise _error(status, answer, self._bucket, key, "PutObject")
        if attempts == 1:
            return None
        try:
            there, tag = self.read_tagged(key)  # an attempt of ours, whose answer was lost, may have been the other
        except FileNotFoundError:
            return None
        return tag if there == data else None

    def _request(
        self, method: str, key: str, data: bytes = b"", condition: Mapping[str, str] | None = None
    ) -> tuple[int | str, bytes, str, int]:
        """A status, or what the network said; the body; the tag; and how often it was asked."""
        from botocore.auth import S3SigV4Auth
        from botocore.awsrequest import AWSRequest

        path = quote(key.encode(errors="surrogateescape"), safe="/~")
        answer: tuple[int | str, bytes, str] = "", b"", ""
        attempt = 0
        for attempt in range(ATTEMPTS):
            if attempt:
                time.sleep(0.1 * 2**attempt)
            request = AWSRequest(method, self._base + path, data=data, headers=dict(condition or {}))
            if self._credentials is not None:
                with _as_os_errors():  # some are fetched anew before they expire
                    frozen = self._credentials.get_frozen_credentials()
                S3SigV4Auth(frozen, "s3", self._region).add_auth(request)
            answer = _asked(self._pool, method, self._root + path, data, dict(request.headers))
            if isinstance(answer[0], int) and answer[0] not in _TRIED_AGAIN:
                break
        return *answer, attempt + 1


class UnsupportedError(Exception):
    """A store cannot do what it was asked for."""


@contextmanager
def _as_os_errors() -> Iterator[None]:
    """Errors of botocore's, of profiles and credentials, become what a file system raises."""
    from botocore.exceptions import BotoCoreError

    try:
        yield
    except BotoCoreError as error:
        raise OSError(f"AWS Error: {error}") from error


def _asked(pool: Any, method: str, path: str, data: bytes, headers: dict[str, str]) -> tuple[int | str, bytes, str]:
    import urllib3

    try:
        answer = pool.request(method, path, body=data or None, headers=headers, decode_content=False)
    except urllib3.exceptions.HTTPError as error:
        return f"{type(error).__name__}: {error}", b"", ""
    return answer.status, answer.data, answer.headers.get("ETag", "")


def _error(failure: int | str, body: bytes, bucket: str, key: str, operation: str) -> OSError:
    """In the words of pyarrow's, by which errors are told apart."""
    if failure == 404:
        return FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), f"{bucket}/{key}")
    name = {403: "ACCESS_DENIED"}.get(failure, "UNKNOWN") if isinstance(failure, int) else "NETWORK_CONNECTION"
    code = body.partition(b"<Code>")[2].partition(b"</Code>")[0].decode(errors="replace")
    what = f"(HTTP status {failure}) {code}" if isinstance(failure, int) else failure
    return OSError(
        f"When asking for key '{key}' in bucket '{bucket}': AWS Error {name} during {operation} operation: {what}"
    )
