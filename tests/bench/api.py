"""The API process as `shouyin serve` starts it, which collects its garbage when told (SIGUSR1)."""

import gc
import signal
from types import FrameType

from app.config import load_config
from app.main import serve_api


def _collect(_number: int, _frame: FrameType | None) -> None:
    gc.collect()


if __name__ == "__main__":
    signal.signal(signal.SIGUSR1, _collect)
    serve_api(load_config())
