"""`python -m service.cli`: the same as `vidgrain`."""

from service.cli.main import main

main()
