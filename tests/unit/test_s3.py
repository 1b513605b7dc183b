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
    with pytest.raises(StorageError, match=r"nobody.*could not be found"):
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


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The addresses below which objects are read."""
    import urllib3

    found: list[str] = []
    monkeypatch.setattr(urllib3, "connection_from_url", lambda url, **_: found.append(url))
    return found


@pytest.mark.parametrize(
    ("name", "region", "address"),
    [
        ("photos", "eu-south-1", "https://photos.s3.eu-south-1.amazonaws.com/"),
        ("photos", "cn-north-1", "https://photos.s3.cn-north-1.amazonaws.com.cn/"),
        ("my.photos", "eu-west-1", "https://s3.eu-west-1.amazonaws.com/my.photos/"),  # no certificate has two dots
    ],
)
def test_objects_of_amazon_are_read_from_the_region_of_their_bucket(opened, monkeypatch, name, region, address):
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    Bucket(name, region, endpoint=None, scheme="https", anonymous=True).objects()
    assert opened == [address]


def test_objects_are_read_from_where_pyarrow_lists_them_whatever_a_profile_says(opened, monkeypatch, tmp_path):
    (tmp_path / "config").write_text("[default]\nendpoint_url = http://elsewhere:9000\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    Bucket("photos", region="eu-west-1", endpoint=None, scheme="https", anonymous=True).objects()
    assert opened == ["https://photos.s3.eu-west-1.amazonaws.com/"]
