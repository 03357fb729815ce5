"""The storage of uploaded files in an S3 bucket, which several machines can share (9.S3, 9.S4).

The data of an upload is an object with a random name, ``owner/id``. An empty object ``owner/id.facts`` is written last
and makes it visible: its name holds the display name, the type and the time, encoded. So one request lists all files of
an owner. With metadata inside the objects, a list would take one more request for each file.

S3 stores an object completely or not at all. A write that the app has given up may still succeed later. Then only the
data is stored: nobody sees it, and the sweep removes it.
Source: OWASP File Upload Cheat Sheet, "File Storage Location"; Amazon S3 User Guide, "Data consistency model".
"""

from __future__ import annotations

import base64
import contextlib
import itertools
import os
import re
import secrets
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from typing import IO, Any, NamedTuple

from app.breaker import AwayError, Breaker
from app.storage import folder
from app.storage.stored import ID, OWNER, StorageError, StoredFile, from_facts, life

# Seconds for each of two attempts: S3 may have closed an idle connection.
CONNECT_SECONDS, READ_SECONDS = 2, 5
PROVE_SECONDS = 1  # a health check must not wait long
BATCH = 1000  # the most objects that one request to S3 can delete
READY = ".ready"  # the object that proves that the bucket can be written to
KEY = re.compile(rf"(?P<owner>{OWNER.pattern})/(?P<id>{ID.pattern})(\.(?P<facts>[\w-]+))?")

# The error code of S3, or the exception of boto3 if there was no answer → what to do.
RIGHTS = "allow s3:ListBucket for the bucket, and s3:GetObject, s3:PutObject and s3:DeleteObject for its objects"
FIXES = {
    "NoSuchBucket": "create the bucket, or correct UPLOAD_STORAGE",
    "AccessDenied": RIGHTS,
    "InvalidAccessKeyId": "correct AWS_ACCESS_KEY_ID",
    "SignatureDoesNotMatch": "correct AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    "NoCredentialsError": "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    "PartialCredentialsError": "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    "ExpiredToken": "renew AWS_SESSION_TOKEN",
    "PermanentRedirect": "correct AWS_DEFAULT_REGION",
    "AuthorizationHeaderMalformed": "correct AWS_DEFAULT_REGION",
}
NETWORK = "check the network and AWS_ENDPOINT_URL_S3"

_breaker = Breaker(threads=4, patient=4, patience=10)


class Entry(NamedTuple):
    """An object of an upload: its data, or, if ``facts`` is not None, the object that makes it visible.

    ``size`` is in bytes, and ``modified`` by the clock of S3.
    """

    key: str
    owner: str
    id: str
    facts: str | None
    size: int
    modified: datetime


class Bucket:
    """See ``stored.Storage`` for what each method does. All of them can raise StorageError."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        """Create the clients. They do not connect yet.

        Raises ImportError if boto3 is not installed, and ValueError for settings that it can't use.
        """
        import boto3  # only if it is needed: it takes a quarter of the start and 25 MB
        from botocore.config import Config
        from botocore.exceptions import BotoCoreError, ClientError

        self._name, _, prefix = config["UPLOAD_STORAGE"].removeprefix("s3://").partition("/")
        self._prefix = f"{prefix.rstrip('/')}/" if prefix else ""
        self._no_answer, self._refused = BotoCoreError, ClientError
        key = [config[name] or None for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")]
        if any(key) and not all(key[:2]):  # boto3 would fail with each request
            raise ValueError("AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY belong together: set both or none")
        try:
            session = boto3.session.Session(*key, region_name=config["AWS_DEFAULT_REGION"] or None)
            # After a redirect without a region, boto3 asks for it (HeadBucket): 70 times if this is redirected too.
            # Without parameters it sends nothing, as no bucket is named.
            session.events.register("provide-client-params.s3.HeadBucket", lambda **_: {})
            url = config["AWS_ENDPOINT_URL_S3"] or None
            once, twice = ({"mode": "standard", "total_max_attempts": attempts} for attempts in (1, 2))
            patient = Config(connect_timeout=CONNECT_SECONDS, read_timeout=READ_SECONDS, retries=twice)
            impatient = Config(connect_timeout=PROVE_SECONDS, read_timeout=PROVE_SECONDS, retries=once)
            self._client = session.client("s3", endpoint_url=url, config=patient)
            self._impatient = session.client("s3", endpoint_url=url, config=impatient)
        except BotoCoreError as error:
            raise ValueError(f"correct AWS_DEFAULT_REGION or AWS_ENDPOINT_URL_S3 ({type(error).__name__})") from error

    def store(
        self, stream: IO[bytes], name: str, media_type: str, owner: str, *, check_quota: Callable[[list[int]], None]
    ) -> StoredFile:
        size = stream.seek(0, os.SEEK_END)
        file = StoredFile(secrets.token_hex(16), owner, name, size, media_type, datetime.now(UTC))
        key, facts = f"{_of(owner)}{file.id}", base64.urlsafe_b64encode(file.facts()).decode().rstrip("=")
        try:
            stream.seek(0)
            self._put(key, stream)
            check_quota(self.sizes(owner))
            self._put(f"{key}.{facts}", b"")
        except Exception:
            with contextlib.suppress(StorageError):  # the sweep does it later
                self._remove([f"{self._prefix}{key}"])
            raise
        return file

    def listing(self, owner: str) -> list[StoredFile]:
        return [file for entries in self._uploads(_of(owner)) if (file := _file(entries))]

    def find(self, owner: str, file_id: str) -> StoredFile | None:
        entries = next(self._uploads(f"{_of(owner)}{file_id}"), []) if ID.fullmatch(file_id) else []
        return _file(entries)

    def fetch(self, file: StoredFile, start: int, stop: int) -> IO[bytes]:
        """Return a copy: a slow download keeps no connection to S3, and a failure of S3 can't cut it short."""
        key = f"{self._prefix}{_of(file.owner)}{file.id}"
        with self._asking() as client, contextlib.ExitStack() as at_failure:
            copy = at_failure.enter_context(folder.temporary())
            answer = client.get_object(Bucket=self._name, Key=key, Range=f"bytes={start}-{stop - 1}")
            copy.seek(start)
            _ = answer["ContentRange"]  # a KeyError if the server ignores Range
            shutil.copyfileobj(answer["Body"], copy)
            copy.seek(0)
            at_failure.pop_all()
        return copy

    def delete(self, file: StoredFile) -> None:
        self._remove([entry.key for entries in self._uploads(f"{_of(file.owner)}{file.id}") for entry in entries])

    def delete_all(self, owner: str) -> None:
        for _ in range(5):  # an upload in progress may add a file meanwhile
            if not (keys := [entry.key for entries in self._uploads(_of(owner)) for entry in entries]):
                return
            self._remove(keys)
        raise StorageError(f"the uploads of {owner} can't be deleted")

    def sizes(self, owner: str) -> list[int]:
        return [entries[0].size for entries in self._uploads(_of(owner)) if entries[0].facts is None]

    def total(self) -> int:
        return sum(entry.size for entries in self._uploads() for entry in entries)

    def sweep(self) -> int:
        old, now = list[str](), time.time()
        for entries in self._uploads():
            seconds = life(entries[0].owner, _is_whole(entries))
            old += [entry.key for entry in entries if now - entry.modified.timestamp() > seconds]
        self._remove(old)
        return len(old)

    def prove(self) -> None:
        with self._asking(self._impatient) as client:
            client.put_object(Bucket=self._name, Key=f"{self._prefix}{READY}", Body=b"")
            # A server that is not S3 may answer 200 too. It does not list what was written.
            client.list_objects_v2(Bucket=self._name, Prefix=f"{self._prefix}{READY}", MaxKeys=1)["Contents"]

    def _put(self, key: str, body: IO[bytes] | bytes) -> None:
        with self._asking() as client:
            client.put_object(Bucket=self._name, Key=f"{self._prefix}{key}", Body=body)

    def _remove(self, keys: list[str]) -> None:
        for start in range(0, len(keys), BATCH):
            objects = [{"Key": key} for key in keys[start : start + BATCH]]
            with self._asking() as client:
                answer = client.delete_objects(Bucket=self._name, Delete={"Objects": objects, "Quiet": True})
            if refused := answer.get("Errors"):
                raise self._error(refused[0].get("Code", ""))

    def _uploads(self, start: str = "") -> Iterator[list[Entry]]:
        """Yield the objects of each upload whose key begins with ``start``. S3 sorts them, so the data comes first."""
        for _, entries in itertools.groupby(self._entries(start), lambda entry: (entry.owner, entry.id)):
            yield list(entries)

    def _entries(self, start: str) -> Iterator[Entry]:
        page: dict[str, str] = {}
        while True:
            with self._asking() as client:
                answer = client.list_objects_v2(Bucket=self._name, Prefix=f"{self._prefix}{start}", **page)
                page = {"ContinuationToken": answer["NextContinuationToken"]} if answer["IsTruncated"] else {}
            for each in answer.get("Contents", ()):
                if found := KEY.fullmatch(each["Key"].removeprefix(self._prefix)):
                    yield Entry(each["Key"], size=each["Size"], modified=each["LastModified"], **found.groupdict())
            if not page:
                return

    @contextlib.contextmanager
    def _asking(self, client: Any = None) -> Iterator[Any]:
        """Yield the client.

        Raises StorageError, also if too many threads wait for S3 already, and FileNotFoundError for a missing object.
        """
        try:
            with _breaker.attempt(self._no_answer):
                yield client or self._client
        except AwayError as error:
            raise StorageError(f"the bucket '{self._name}' was not asked: {error}") from None
        except self._refused as error:  # its text, and that of the next one, may contain owners
            if (code := error.response["Error"].get("Code", "")) == "NoSuchKey":
                raise FileNotFoundError from None
            raise self._error(code) from None
        except (self._no_answer, KeyError) as error:  # the second one: not an S3 answer
            raise self._error(type(error).__name__) from None
        except OSError as error:
            raise StorageError(f"UPLOAD_DIR has no room for a download: {error.strerror}") from None

    def _error(self, code: str) -> StorageError:
        # In brackets: redaction would take what follows "SignatureDoesNotMatch:" for a secret.
        fix = FIXES.get(code, NETWORK)
        return StorageError(f"the bucket '{self._name}' (UPLOAD_STORAGE) can't be used ({code}): {fix}")


def _of(owner: str) -> str:
    if not OWNER.fullmatch(owner):
        raise ValueError("not an owner of uploads")
    return f"{owner}/"


def _is_whole(entries: list[Entry]) -> bool:
    return len(entries) == 2 and entries[0].facts is None


def _file(entries: list[Entry]) -> StoredFile | None:
    """Return the visible file that these objects are, or None."""
    if not _is_whole(entries):
        return None
    data, facts = entries[0], entries[1].facts or ""
    try:
        decoded = base64.urlsafe_b64decode(facts + "=" * (-len(facts) % 4))
    except ValueError:
        decoded = b""
    return from_facts(data.id, data.owner, data.size, decoded)
