import sys

import pytest

from benchmarks.server_process import free_port, parse_memory, run_server

STATUS = "Name:\tpython\nVmPeak:\t  9 kB\nVmHWM:\t  2048 kB\nVmRSS:\t  1024 kB\nThreads:\t1\n"
SERVER = """
import http.server, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == "/health" else 404)
        self.end_headers()
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


@pytest.mark.parametrize(("name", "size"), [("VmHWM", 2 * 2**20), ("VmRSS", 2**20), ("VmSwap", 0)])
def test_memory_is_read_from_the_line_of_its_name(name, size):
    assert parse_memory(STATUS, name) == size


def test_a_process_without_memory_lines_has_none():
    assert parse_memory("Name:\tpython\nState:\tZ (zombie)\n", "VmRSS") == 0


def test_a_server_is_handed_out_when_it_is_healthy_and_ended_afterwards(tmp_path):
    port = free_port()

    with run_server([sys.executable, "-c", SERVER, str(port)], port, tmp_path / "log") as server:
        assert server.process.poll() is None
        assert server.started < server.ready
        assert server.peak_rss_bytes() >= server.rss_bytes() > 0

    assert server.process.poll() is not None
    assert server.rss_bytes() == 0


def test_a_server_that_ends_at_once_stops_the_program_with_its_last_words(tmp_path):
    command = [sys.executable, "-c", "import sys; sys.exit('no such model')"]

    with pytest.raises(SystemExit, match="no such model"), run_server(command, free_port(), tmp_path / "log"):
        pytest.fail("it was never ready")
