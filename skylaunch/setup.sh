# Makes the interpreter that trains, and writes down which one it is: the user's own, the image's, or a new environment.
set -euo pipefail
umask 077
folder="$HOME/.ainfinity/attempts/$AINFINITY_ATTEMPT"
# Looks for the packages without importing them, which takes many seconds.
packages='
import importlib.util, sys
names = ["datasets", "deepspeed", "peft", "torch", "transformers"]
missing = [name for name in names if importlib.util.find_spec(name) is None]
sys.exit(f"{sys.executable} lacks {chr(44).join(missing)}" if missing else 0)
'
mkdir -p "$folder"

settle() {
  printf '%s\n' "$1" >"$folder/.python.$$"
  mv "$folder/.python.$$" "$folder/python" # in one step, for another node that reads it
}

if [ -n "${AINFINITY_PYTHON:-}" ]; then
  "$AINFINITY_PYTHON" -c "$packages" || {
    echo "ainfinity: resources.python lacks packages of the trainer, see the line above: install them there," >&2
    echo "ainfinity: or unset resources.python for an environment that is made on the machine" >&2
    exit 1
  }
  settle "$AINFINITY_PYTHON"
  # DeepSpeed's helpers, where the environment has them built: building takes a while, and not every node has a compiler.
  built="$(dirname "$(dirname "$AINFINITY_PYTHON")")/torch_extensions"
  exec 9>"$HOME/.ainfinity/setup.lock"
  flock 9 # nodes of a cluster often share their home
  if [ -d "$built" ] && [ ! -e "$HOME/.ainfinity/extensions" ]; then
    rm -rf "$HOME/.ainfinity/.extensions"
    cp -a "$built" "$HOME/.ainfinity/.extensions"
    mv "$HOME/.ainfinity/.extensions" "$HOME/.ainfinity/extensions"
  fi
  exit 0
fi
if [ -n "${AINFINITY_IMAGE:-}" ] && python3 -c "$packages" 2>/dev/null; then
  settle "$(command -v python3)"
  exit 0
fi

# An environment a set of pins, so that another version of ainfinity makes another one. It is complete with its mark.
environment="$HOME/.ainfinity/environments/$(printf '%s' "$AINFINITY_PINS" | cksum | cut -d ' ' -f 1)"
python="$environment/bin/python"
mkdir -p "$HOME/.ainfinity/environments"
exec 9>"$environment.lock"
flock 9
if [ ! -e "$environment/complete" ]; then
  export PATH="$PATH:$HOME/.local/bin" # where SkyPilot puts uv
  command -v uv >/dev/null || {
    python3 -m venv "$HOME/.ainfinity/uv"
    "$HOME/.ainfinity/uv/bin/python" -m pip install --quiet --disable-pip-version-check uv
    PATH="$PATH:$HOME/.ainfinity/uv/bin"
  }
  uv venv --quiet --clear --python '>=3.11' "$environment"
  # `auto`: the build of torch for the GPUs and the driver that are here, or for the CPU.
  printf '%s' "$AINFINITY_PINS" | tr ' ' '\n' |
    uv pip install --quiet --python "$python" --torch-backend auto --requirement /dev/stdin
  if [ "$AINFINITY_GPUS" -gt 0 ]; then
    "$python" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' || {
      echo "ainfinity: torch finds no GPU on this machine, though the job asks for $AINFINITY_GPUS" >&2
      echo "ainfinity: see its driver with nvidia-smi, or set resources.python or resources.image" >&2
      exit 1
    }
  fi
  touch "$environment/complete"
fi
settle "$python"
