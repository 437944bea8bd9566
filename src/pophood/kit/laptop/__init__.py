"""The files that a kit carries for a laptop: setup.sh finds a Python, install.py does the rest."""
