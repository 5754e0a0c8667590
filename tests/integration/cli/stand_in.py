"""A service that is only ready: `python stand_in.py PORT`, ready after a moment, ends at SIGTERM.

With another argument it notes that it was asked for that, and ends.
"""

import os
import signal
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class Ready(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/readyz" else 404)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Silence."""


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    if sys.argv[1:] == ["broken"]:
        print("no such setting")
        sys.exit(2)
    if len(sys.argv) > 2:
        Path(os.environ["MILLRACE_HOME"], sys.argv[2]).touch()
        sys.exit(0)
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Ready).serve_forever()
