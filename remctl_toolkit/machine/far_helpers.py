"""Programs run by functions of the far side."""


def check_output(argv, input=b"", **keywords):
    """Run a program, and return what it wrote; keywords are those of subprocess.run()."""
    import subprocess

    keywords.setdefault("check", True)
    return subprocess.run(argv, input=input, stdout=subprocess.PIPE, **keywords).stdout


def output_lines(argv, input=b"", **keywords):
    """The same, as lines of text; octets that are no UTF-8 as os.fsdecode() has them."""
    octets = check_output(argv, input, **keywords)
    lines = octets.decode("utf-8", "surrogateescape").split("\n")
    return lines[:-1] if lines[-1] == "" else lines
