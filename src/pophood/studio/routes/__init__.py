"""The studio's routes, one file for each part of the page; `build.py` adds them all to the server's app."""
