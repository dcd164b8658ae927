"""An answer out of a file that is open already: what was checked when it was opened is what is sent.

It knows no video and no path.
"""

from __future__ import annotations

import os
from typing import BinaryIO

from starlette.responses import FileResponse
from starlette.types import Receive, Scope, Send


class OpenFileResponse(FileResponse):
    """Starlette's FileResponse, with its ranges, over an open file, which is closed when the answer has ended."""

    def __init__(self, file: BinaryIO, *, media_type: str, file_name: str) -> None:
        # /dev/fd opens what the descriptor holds: no name is looked up a second time
        super().__init__(
            f"/dev/fd/{file.fileno()}",
            media_type=media_type,
            filename=file_name,
            content_disposition_type="inline",
            stat_result=os.fstat(file.fileno()),
        )
        self._file = file

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._file.close()
