"""Requests as they go on the wire, answers as they are read, and what counts as wrong."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from bench import calls, load, open_loop
from bench.calls import Calls
from bench.percentile import percentile
from bench.plan import efforts, total

GOOD = {"requests": 1000.0, "errors": 0.0, "statuses": 0.0, "wrong": 0.0, "other": 0.0}


def test_each_key_has_a_request_of_its_own() -> None:
    made = calls.requests(
        Calls(port=1, method="PUT", path="/cache/k-%d", body='{"value":%d}', keys=2)
    )
    assert made[1] == (
        b"PUT /cache/k-2 HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        b'Content-Length: 11\r\n\r\n{"value":2}'
    )
    assert len(made) == 2


def test_a_request_without_a_body_says_nothing_of_one() -> None:
    assert calls.requests(Calls(port=1, path="/x")) == [
        b"GET /x HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
    ]


def test_a_key_in_the_parameters_becomes_a_number() -> None:
    body = calls.query("SELECT $1", "postgresql", ["%d"], maxRows=5)
    asked = json.loads(body.replace("%d", "7"))
    assert asked["params"] == [7]
    assert asked["options"] == {"maxRows": 5}


def test_requests_are_read_as_they_were_written(tmp_path: Path) -> None:
    made = [b"GET / HTTP/1.1\r\n\r\n", b"POST / HTTP/1.1\r\n\r\n12\nab", b""]
    calls.write(tmp_path / "requests", made)
    assert open_loop.read(tmp_path / "requests") == made


ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


@pytest.mark.parametrize("step", [1, 7, len(ANSWER), 1000])
def test_answers_are_told_apart_however_they_arrive(step: int) -> None:
    answers = open_loop.Answers(200)
    answers.due.extend([1.0, 2.0, 3.0])
    content = ANSWER * 2 + b"HTTP/1.1 204 No Content\r\n\r\n"
    latencies = []
    for start in range(0, len(content), step):
        latencies += answers.received(content[start : start + step], 10.0)
    assert latencies == [9.0, 8.0, 7.0]
    assert answers.wrong == 1


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({}, ""),
        ({"requests": 0.0}, "GET /x: no answer at all"),
        ({"errors": 2.0}, "GET /x: 2 connections failed, of 1000"),
        ({"statuses": 500.0}, ""),
        ({"statuses": 501.0}, "GET /x: 501 answers had a status of 400 or more, of 1000"),
        ({"wrong": 4.0, "other": 204.0}, "GET /x: 4 answers were not 200 but 204, of 1000"),
    ],
)
def test_a_wrong_answer_is_named(changed: dict[str, float], said: str) -> None:
    assert load.wrong(Calls(port=1, path="/x"), GOOD | changed) == said


def test_percentiles_go_by_rank() -> None:
    ordered = [float(number) for number in range(1, 101)]
    assert percentile(ordered, 0.5) == 51
    assert percentile(ordered, 0.99) == 100
    assert percentile([7.0], 0.99) == 7
    assert percentile([], 0.5) == 0


def test_the_promised_size_is_measured_first_and_longest() -> None:
    planned = efforts([1, 16, 64], 5, 2)
    assert [(each.connections, each.seconds) for each in planned] == [(16, 2), (1, 1), (64, 1)]


def test_the_comparisons_as_planned_leave_room_in_fifteen_minutes() -> None:
    from bench.cases import CASES

    assert total(efforts([1, 16, 64], 5, 2), len(CASES)) < 12 * 60


class Stalling(BaseHTTPRequestHandler):
    """Answers; the first call of all only after a while."""

    protocol_version = "HTTP/1.1"
    first = threading.Lock()

    def do_GET(self) -> None:
        if self.first.acquire(blocking=False):
            threading.Event().wait(0.3)
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

    def log_message(self, format: str, *args: object) -> None:
        """Silent."""


def test_an_open_loop_counts_the_wait_of_calls_behind_a_stall() -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), Stalling) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            port = server.server_address[1]
            made = calls.requests(Calls(port=port, path="/"))
            result = open_loop.drive(made, port, 200, rate=100, connections=1, seconds=0.4)
        finally:
            server.shutdown()
            thread.join()
    assert (result["calls"], result["wrong"]) == (40, 0)
    # 30 of 40 calls were due while the first was held; a closed loop would have seen one.
    assert result["p50_us"] > 20_000
