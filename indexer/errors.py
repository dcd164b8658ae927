"""The errors of the index: media, catalogue, jobs and search.

IndexerError (of model.errors.VidgrainError)
├── NotFound                not_found             no video, job or segment with that id
├── DuplicateVideo          duplicate_video       the same content is indexed already
├── JobConflict             job_conflict          the job's state does not allow that
├── InvalidFilter           invalid_filter        a search filter that can't be read
├── InvalidQuery            invalid_query         options or a range that can't be searched with
│   ├── EmptyQuery          empty_query           a sentence without words
│   └── QueryTooLong        query_too_long        a sentence over the limit
├── ModelMismatch           model_mismatch        the data was made by another model
├── InvalidMetadata         invalid_metadata      metadata that JSON can't hold, or too much of it
├── JobLost                 job_lost              another worker holds the job now, or it was ended
├── CatalogueBusy           catalogue_busy        another process held the catalogue too long (retryable)
├── CatalogueUnreadable     catalogue_unreadable  the catalogue's file is damaged or of another version
├── StorageFull             storage_full          no room left on the disk                 (retryable)
├── BackendMissing          backend_missing       FAISS or a decoder isn't installed
├── SandboxClosed           sandbox_closed        decoding was stopped by a shutdown       (retryable)
├── DecodeBusy              decode_busy           all decoders are busy, the queue full   (retryable)
├── DecodeInterrupted       decode_interrupted    the decoder's process was killed from outside (retryable)
└── MediaError
    ├── UnsupportedMedia    unsupported_media     no video stream, or not a media file at all
    ├── VideoUndecodable    video_undecodable     a video stream that can't be decoded
    ├── VideoTooLong        video_too_long        longer or larger than the settings allow
    ├── FileMissing         file_missing          the video's file is not where it was
    ├── FileChanged         file_changed          the file holds other content than when it was added
    ├── DecodeTimeout       decode_timeout        decoding took longer than the limit
    └── DecodeCrashed       decode_crashed        the decoder crashed or exceeded its memory limit
"""

from __future__ import annotations

from pathlib import Path

from model.errors import VidgrainError


class IndexerError(VidgrainError):
    """Anything that goes wrong in the index."""

    code = "indexer_error"


class NotFound(IndexerError):
    """No video, job or segment with that id."""

    code = "not_found"


class DuplicateVideo(IndexerError):
    """The same content is in the index already (asked for with on_duplicate="error")."""

    code = "duplicate_video"


class JobConflict(IndexerError):
    """The job's state does not allow what was asked (cancel of a finished job, ...)."""

    code = "job_conflict"


class InvalidFilter(IndexerError):
    """A search filter that can't be read; the message names the part."""

    code = "invalid_filter"


class InvalidQuery(IndexerError):
    """A query that can't be searched with: an option out of bounds, or a range outside the video."""

    code = "invalid_query"


class EmptyQuery(InvalidQuery):
    """A sentence without words."""

    code = "empty_query"


class QueryTooLong(InvalidQuery):
    """A sentence with more characters than MAX_QUERY_CHARS."""

    code = "query_too_long"


class ModelMismatch(IndexerError):
    """The data folder was made by a model of another fingerprint."""

    code = "model_mismatch"


class InvalidMetadata(IndexerError):
    """Metadata that JSON can't hold (NaN, objects of Python), or more than the catalogue takes."""

    code = "invalid_metadata"


class JobLost(IndexerError):
    """The job is no longer this worker's: its lease ran out and another took it, or it was ended."""

    code = "job_lost"


class CatalogueBusy(IndexerError):
    """Another process held the catalogue for longer than we wait; trying again is right."""

    code = "catalogue_busy"
    is_retryable = True


class CatalogueUnreadable(IndexerError):
    """The catalogue's file is damaged, or of a version this program does not know."""

    code = "catalogue_unreadable"


class StorageFull(IndexerError):
    """No room left on the disk; nothing that was accepted is lost."""

    code = "storage_full"
    is_retryable = True


class BackendMissing(IndexerError):
    """An outside library (FAISS, a decoder) isn't installed; the hint says which extra brings it."""

    code = "backend_missing"


class SandboxClosed(IndexerError):
    """The decode sandbox was closed; this has nothing to do with the file."""

    code = "sandbox_closed"
    is_retryable = True


class DecodeBusy(IndexerError):
    """All decoders are at work, and enough requests wait for one."""

    code = "decode_busy"
    is_retryable = True

    def __init__(self, message: str, hint: str = "Try again in a moment.", *, path: Path | None = None) -> None:
        super().__init__(message, hint, path=path)
        self.retry_after_s = 5
        """Seconds after which it makes sense to ask again."""


class DecodeInterrupted(IndexerError):
    """The decoder's process was killed from outside, as by the system when memory runs out; the file may be fine."""

    code = "decode_interrupted"
    is_retryable = True


class MediaError(IndexerError):
    """A file that can't be used as video."""

    code = "media_error"


class UnsupportedMedia(MediaError):
    """Not a media file, or one without a video stream."""

    code = "unsupported_media"


class VideoUndecodable(MediaError):
    """A video stream that can't be decoded."""

    code = "video_undecodable"


class VideoTooLong(MediaError):
    """Longer, or with larger pictures, than the settings allow."""

    code = "video_too_long"


class FileMissing(MediaError):
    """The video's file is not where it was when it was added."""

    code = "file_missing"


class FileChanged(MediaError):
    """The file holds other content than when it was added; its hash would name the wrong video."""

    code = "file_changed"


class DecodeTimeout(MediaError):
    """Decoding took longer than its limit and was stopped."""

    code = "decode_timeout"


class DecodeCrashed(MediaError):
    """The decoder's process died twice on the same request, or passed its memory limit."""

    code = "decode_crashed"
