"""The program: ``semdedup``, or ``python -m semdedup``. Ctrl-C is heard before the rest is imported."""

from semdedup.ctrl_c import EXIT_INTERRUPTED, end_at_ctrl_c, leave, was_pressed


def main() -> None:
    """Run the program."""
    end_at_ctrl_c()
    try:
        from semdedup.cli import main as program

        program()
    except KeyboardInterrupt:
        leave()
    except SystemExit as end:
        if was_pressed() and end.code:
            leave(is_said=end.code == EXIT_INTERRUPTED)
        raise


if __name__ == "__main__":
    main()
