"""``python -m headrace.cli`` is ``headrace``: for children, which may not find the script on their path."""

from headrace.cli import main

main()
