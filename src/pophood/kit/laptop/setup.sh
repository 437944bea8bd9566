#!/bin/sh
# Sets this laptop up from the kit beside this file; asks no network. Usage: sh setup.sh [FOLDER]
kit=$(CDPATH= cd -- "$(dirname -- "$0")" && pwd) || exit 1
if [ "$(uname -s) $(uname -m)" != "@UNAME@" ]; then
    echo "pophood kit: the kit is for @PLATFORM@; this is $(uname -s) $(uname -m), which pophood has no wheels for." >&2
    exit 1
fi
# Says what a Python lacks, or nothing if it fits; in words that old ones understand too.
look='
import sys
version, lacks = "%d.%d" % sys.version_info[:2], []
for name in "ctypes hashlib json sqlite3 ssl subprocess unicodedata venv zipfile zlib".split():
    try:
        __import__(name)
    except ImportError:
        lacks.append(name)
if version not in sys.argv[1:]:
    print("is Python " + version)
elif sys.implementation.name != "cpython":
    print("is " + sys.implementation.name)
elif sys.maxsize < 2 ** 32:
    print("is of 32 bits")
elif __import__("sysconfig").get_config_var("Py_GIL_DISABLED"):
    print("is free-threaded, which the wheels are not for")
elif lacks:
    print("lacks " + ", ".join(lacks) + " of its own library")
'
seen=
for python in python3 python @COMMANDS@; do
    fault=$("$python" -c "$look" @PYTHONS@ 2> /dev/null) || continue
    [ -n "$fault" ] || exec "$python" "$kit/install.py" "$@"
    seen="$seen
    $python $fault"
done
echo "pophood kit: the kit is for Python @PYTHON_WORDS@, and this laptop has none that fits: install one first.${seen:-
    no command python3, python, or with a version in its name}" >&2
exit 1
