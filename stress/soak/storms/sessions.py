"""One thread: commands over one session, and sessions one after the other."""

from __future__ import annotations

from ..run import Run


def commands(run: Run) -> None:
    """Run commands over one session, in every possible way."""
    data = bytes(range(256)) * 300  # More than one token.

    def part(count: int) -> None:
        for step in range(count):
            run.ask(session, by_token=step % 10 == 9)
            if step % 50 == 0 and not session.noop():
                run.fail("noop() was not answered")
            if step % 200 == 0 and session.run(["cat", "x"], input=data).stdout != data:
                run.fail("a large reply is not what was sent")
            run.step()

    with run.session() as session:
        descriptor = session.fileno()
        run.judge(part)
        if session.fileno() != descriptor:
            run.fail("the connection was opened again")


def opens(run: Run) -> None:
    """Open and close sessions, half of them with one object; run a command in every fourth."""
    again = run.session()

    def part(count: int) -> None:
        for step in range(count):
            if step % 2:
                again.open("localhost", run.port)
                session = again
            else:
                session = run.session()
            if step % 4 < 2:
                run.ask(session)
            session.close()
            run.step()

    run.judge(part)
