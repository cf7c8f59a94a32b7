#!/usr/bin/env bash
# Makes the demo policy from nothing, in stages that each go on where they were stopped: `make
# demo-checkpoint`. OUT picks the folder. The shipped one was made so; its card says with what result.
set -euo pipefail
cd "$(dirname "$0")/.."

out=${OUT:-runs/demo_checkpoint}
config=${DATA_CONFIG:-demo}
data=$out/data/widowx_sim/$config/1.1.0
robot=.venv/bin/canvas-robot
mkdir -p "$out"

stage() { echo "=== $1"; }

train() { # name, configuration, overrides
    local run=$out/$1 config=$2
    shift 2
    if [ -f "$run/config.yaml" ]; then
        $robot train --resume "$run"
    else
        $robot train "$config" "run=$run" "data.folder=$data" "data.latents=$out/latents" "$@"
    fi
}

once() { # folder, command: makes the folder unless it is there
    local made=$1
    shift
    [ -e "$made" ] || "$@"
}

cat <<'PLAN'
On two cores, nothing else running: demonstrations 3 minutes, the VAE 9 (it is bounded by time),
latents 3; then the rates of four trainings are measured here and their hours printed.
PLAN
stage "1 of 9: demonstrations of the scripted experts"
if [ ! -f "$data/dataset_info.json" ]; then
    (cd datasets/widowx_sim && MUJOCO_GL=${MUJOCO_GL:-egl} ../../.venv/bin/python ../tfds_build.py \
        --config "$config" --data_dir "$(cd "../../$out" && pwd)/data")
fi

stage "2 of 9: the backbone's VAE and tokenizer"
once "$out/backbone" $robot make-backbone demo_backbone.yaml "folders=[$data]" "out=$out/backbone"

stage "3 of 9: pictures to latents"
for split in train val; do
    $robot data encode "$data" --split $split --backbone "$out/backbone" --dtype float32 \
        --schema widowx_small_video.json --binding widowx_video.yaml --out "$out/latents"
done

stage "4 of 9: how long what follows takes"
for config in demo_pretrain demo_actions demo_balanced demo_adapt; do
    echo "$config:"
    beginning=()
    if [ "$config" != demo_pretrain ]; then beginning=("start_from=''"); fi
    $robot train "$config.yaml" --fit "backbone.source=$out/backbone" "data.folder=$data" \
        "data.latents=$out/latents" "${beginning[@]}" | grep -E "parameters trained|steps/s|hours"
done

stage "5 of 9: video and actions, all of the transformer"
train pretrain demo_pretrain.yaml "backbone.source=$out/backbone"
once "$out/pretrained" $robot export "$out/pretrain" --backbone -o "$out/pretrained"
once "$out/pretrained_policy" $robot export "$out/pretrain" -o "$out/pretrained_policy"

stage "6 of 9: actions, all of the transformer"
train actions demo_actions.yaml "backbone.source=$out/pretrained" \
    "start_from=$out/pretrained_policy"
once "$out/acting" $robot export "$out/actions" --backbone -o "$out/acting"
once "$out/acting_policy" $robot export "$out/actions" -o "$out/acting_policy"

stage "7 of 9: actions, every instruction as often as the others"
train balanced demo_balanced.yaml "backbone.source=$out/acting" "start_from=$out/acting_policy"
once "$out/frozen" $robot export "$out/balanced" --backbone -o "$out/frozen"
once "$out/balanced_policy" $robot export "$out/balanced" -o "$out/balanced_policy"

stage "8 of 9: loops, codecs and head, the transformer frozen"
train adapt demo_adapt.yaml "backbone.source=$out/frozen" "start_from=$out/balanced_policy"

stage "9 of 9: the checkpoint"
once "$out/policy" $robot export "$out/adapt" --whole -o "$out/policy"
echo "evaluate it: $robot eval --env canvas_robot/WidowXReach-v0 --policy $out/policy --episodes 200"
