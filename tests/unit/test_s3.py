"""Profiles and credentials: what is wrong with them is told, and objects are read from where pyarrow lists them."""

from collections.abc import Iterator

import pytest

from raylearn.data.images import read_bytes
from raylearn.data.s3 import Bucket
from raylearn.data.storage import forget_buckets
from raylearn.errors import StorageError

pytest.importorskip("botocore")


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    for name in ("AWS_PROFILE", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name, raising=False)
    forget_buckets()
    yield
    forget_buckets()


def test_a_profile_that_is_not_there_is_told(monkeypatch):
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    with pytest.raises(StorageError, match="nobody.*could not be found"):
        read_bytes("s3://bucket/a.jpg")


def test_credentials_that_cannot_be_fetched_anew_are_told(monkeypatch):
    from botocore.credentials import Credentials
    from botocore.exceptions import CredentialRetrievalError
    from botocore.session import Session

    class Expired(Credentials):
        given = 0

        def get_frozen_credentials(self):
            self.given += 1
            if self.given > 1:  # the first opens the bucket
                raise CredentialRetrievalError(provider="sso", error_msg="the session has expired")
            return super().get_frozen_credentials()

    expired = Expired("key", "secret")
    monkeypatch.setattr(Session, "get_credentials", lambda _: expired)
    with pytest.raises(StorageError, match="the session has expired"):
        read_bytes("s3://bucket/a.jpg")
    assert expired.given == 2


def test_objects_are_read_from_where_pyarrow_lists_them_whatever_a_profile_says(monkeypatch, tmp_path):
    import urllib3

    (tmp_path / "config").write_text("[default]\nendpoint_url = http://elsewhere:9000\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    opened: list[str] = []
    monkeypatch.setattr(urllib3, "connection_from_url", lambda url, **_: opened.append(url))
    Bucket("photos", region="eu-west-1", endpoint=None, scheme="https", anonymous=True).reader()
    assert opened == ["https://photos.s3.eu-west-1.amazonaws.com/"]
