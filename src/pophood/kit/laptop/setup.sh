#!/bin/sh
# Sets this laptop up from the kit beside this file; asks no network. Usage: sh setup.sh [FOLDER]
kit=$(CDPATH= cd -- "$(dirname -- "$0")" && pwd) || exit 1
for version in @PYTHONS@; do
    for python in "python$version" python3 python; do
        if "$python" -c "import sys; sys.exit('%d.%d' % sys.version_info[:2] != '$version')" 2> /dev/null; then
            exec "$python" "$kit/install.py" "$@"
        fi
    done
done
echo "This kit needs Python @PYTHON_WORDS@, and this laptop has $(python3 --version 2> /dev/null || echo none): install one of them first." >&2
exit 1
