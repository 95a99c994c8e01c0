# Trains on one node of the attempt, and at the end has what was exported read again.
set -euo pipefail
umask 077
folder="$HOME/.ainfinity/attempts/$AINFINITY_ATTEMPT"
recipe="$folder/recipe-$SKYPILOT_NODE_RANK.json"
output="${AINFINITY_OUTPUT/#\~/$HOME}"
checkpoints="${AINFINITY_CHECKPOINTS/#\~/$HOME}"
python="$(cat "$folder/python")"
printf '%s' "$AINFINITY_RECIPE" | base64 -d >"$recipe"

# SAFEPATH: a training/ in the folder we start in must not shadow the trainer that was sent along.
export PYTHONSAFEPATH=1 PYTHONPATH="$folder/trainer" PYTHONUNBUFFERED=1 TOKENIZERS_PARALLELISM=false
export TORCH_EXTENSIONS_DIR="${TORCH_EXTENSIONS_DIR:-$HOME/.ainfinity/extensions}"
PATH="$(dirname "$python"):$PATH" # ninja, with which DeepSpeed builds its helpers

# `python -m torch.distributed.run` is torchrun, also where its folder is not on the PATH. Not the deepspeed launcher:
# on SIGTERM it exits at once and leaves its ranks training.
code=0
"$python" -m torch.distributed.run \
  --nnodes "$SKYPILOT_NUM_NODES" --node_rank "$SKYPILOT_NODE_RANK" --nproc_per_node "$AINFINITY_RANKS" \
  --master_addr "$(printf '%s\n' "$SKYPILOT_NODE_IPS" | head -n 1)" --master_port "$AINFINITY_PORT" \
  -m training.finetune "$recipe" --output "$output" --checkpoints "$checkpoints" || code=$?
if [ "$code" -ne 0 ]; then
  # torchrun exits with 1 for whatever its ranks exit with.
  ! ainfinity_is_late || exit 76
  exit "$code"
fi
# In another process, and from the storage as any machine sees it: a model counts once it can be read back.
if [ -n "${AINFINITY_VERIFY:-}" ] && [ "$SKYPILOT_NODE_RANK" = 0 ]; then
  "$python" -m training.verify "$output"
fi
