"""A live stream on loopback: MPEG-TS over HTTP, encoded while it is sent, as a camera does.

    python tests/stream_server.py PORT FIRST_FRAME NUM_FRAMES FRAMES_PER_SECOND

Serves one client in real time. Prints its port once it listens (0 picks a free one), and exits when
the frames are over or the client has left.
"""

import sys
import time
from fractions import Fraction
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import av
import videos


def main(port: int, first: int, num_frames: int, rate: int) -> None:
    frames = list(videos.frames(first + num_frames))[first:]

    class Stream(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "video/mp2t")
            self.end_headers()
            with av.open(self.wfile, "w", format="mpegts") as output:
                options = {"tune": "zerolatency", "g": "10", "preset": "ultrafast"}
                stream: Any = output.add_stream("libx264", rate=Fraction(rate), options=options)
                stream.height, stream.width, stream.pix_fmt = *frames[0].shape[:2], "yuv420p"
                started = time.perf_counter()
                for number, array in enumerate(frames):
                    time.sleep(max(0.0, started + number / rate - time.perf_counter()))
                    output.mux(stream.encode(av.VideoFrame.from_ndarray(array, format="rgb24")))
                output.mux(stream.encode(None))

        def log_message(self, *message: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", port), Stream)
    print(server.server_port, flush=True)
    server.handle_request()


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
