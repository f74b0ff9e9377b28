#!/bin/sh
# CPython 3.11.7, 3.12.1 and 3.13.0. A process with a limit of file sizes (`ulimit -f`, RLIMIT_FSIZE) imports a module
# whose compiled form is larger than the limit. The import works, and CPython leaves the first part of the compiled form
# in __pycache__: the system has written fewer bytes than asked, and importlib does not look at the number. From then on,
# each process fails to import the module ("EOFError: marshal data too short"), also without any limit, until somebody
# deletes the file: its header is right, so CPython does not compile the source again. A disk that becomes full during
# the write does the same. So a worker with a limit of its own output can break all later workers of the same folder.
# Seen on 2026-12-02 with the output below. The script fails if the behaviour changes.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
unset PYTHONDONTWRITEBYTECODE PYTHONPYCACHEPREFIX
python3 - <<'PYTHON'
with open("wide.py", "w") as module:
    for number in range(400):
        module.write(f"def function_{number}(a, b):\n    return a + b + {number}\n\n\n")
PYTHON
{
    (ulimit -f 32 && python3 -c 'import wide; print("under a limit:", wide.function_1(1, 2))')
    python3 -c 'import wide' 2>&1 | tail -n 1 | sed 's/^/without a limit: /'
    rm -r __pycache__
    python3 -c 'import wide; print("after its removal:", wide.function_1(1, 2))'
} >seen
cat >expected <<'TEXT'
under a limit: 4
without a limit: EOFError: marshal data too short
after its removal: 4
TEXT
diff expected seen
cat seen
