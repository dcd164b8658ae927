"""What the service answers, as HTTP and `--json` of the command line print it; one file per subject, as in routes/.

A record X of the index becomes an XResponse, a page of them an XPage. Seconds of a video count from its first frame;
times of the world are ISO 8601 in UTC. No path of the server appears here: a video shows its file's name. What the
command line adds is in service/cli/local.py. requests.py holds what comes in.
"""
