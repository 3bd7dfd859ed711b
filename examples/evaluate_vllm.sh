#!/bin/bash
# Evaluate a model behind vLLM, and an adapter of bdpo on it, as one comparison. Needs vLLM and a GPU; tests parse it.
#
#   examples/evaluate_vllm.sh Qwen/Qwen2-7B-Instruct runs/qwen2-7b data
set -euo pipefail
base=${1:?the model} adapter=${2:?the folder of the run} data=${3:?the folder of the published files}

vllm serve "$base" --enable-lora --lora-modules "aligned=$adapter" --max-lora-rank 16 --port 8000 &
trap 'kill %1' EXIT
until curl --silent --fail http://localhost:8000/v1/models > /dev/null; do sleep 5; done

bdpo evaluate "base=$base" B-DPO=aligned --endpoint http://localhost:8000/v1 --suite safety,over-refusal \
    --data-dir "$data" --out runs/behind-vllm
bdpo compare runs/behind-vllm
