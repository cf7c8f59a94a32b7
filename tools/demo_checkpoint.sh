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

rates() { # backbone, data, latents: what the four trainings take here
    local config beginning
    for config in demo_pretrain demo_actions demo_balanced demo_adapt; do
        echo "$config:"
        beginning=()
        if [ "$config" != demo_pretrain ]; then beginning=("start_from=''"); fi
        $robot train "$config.yaml" --fit "backbone.source=$1" "data.folder=$2" \
            "data.latents=$3" "${beginning[@]}" | grep -E "parameters trained|windows/s|hours"
    done
}

demonstrate() { # configuration, folder
    local folder
    mkdir -p "$2"
    folder=$(realpath "$2")
    (cd datasets/widowx_sim && MUJOCO_GL=${MUJOCO_GL:-egl} ../../.venv/bin/python ../tfds_build.py \
        --config "$1" --data_dir "$folder")
}

to_latents() { # data, backbone, latents
    local split
    for split in train val; do
        $robot data encode "$1" --split $split --backbone "$2" --dtype float32 \
            --schema widowx_small_video.json --binding widowx_video.yaml --out "$3"
    done
}

stage "0 of 8: how long it takes here; on two cores of an AMD EPYC it took 63 to 72 minutes"
if [ ! -f "$data/dataset_info.json" ]; then
    plan=$out/plan
    few=$plan/widowx_sim/tasks_small/1.1.0
    demonstrate tasks_small "$plan"
    once "$plan/backbone" $robot make-backbone demo_backbone.yaml "folders=[$few]" \
        "out=$plan/backbone" minutes=0.2
    to_latents "$few" "$plan/backbone" "$plan/latents"
    rates "$plan/backbone" "$few" "$plan/latents"
    echo "demonstrations: about 3 minutes; the VAE: 9, it is bounded by time; latents: about 2"
fi

stage "1 of 8: demonstrations of the scripted experts"
if [ ! -f "$data/dataset_info.json" ]; then
    demonstrate "$config" "$out/data"
fi

stage "2 of 8: the backbone's VAE and tokenizer"
once "$out/backbone" $robot make-backbone demo_backbone.yaml "folders=[$data]" "out=$out/backbone"

stage "3 of 8: pictures to latents"
to_latents "$data" "$out/backbone" "$out/latents"

stage "4 of 8: video and actions, all of the transformer"
train pretrain demo_pretrain.yaml "backbone.source=$out/backbone"
once "$out/pretrained" $robot export "$out/pretrain" --backbone -o "$out/pretrained"
once "$out/pretrained_policy" $robot export "$out/pretrain" -o "$out/pretrained_policy"

stage "5 of 8: actions, all of the transformer"
train actions demo_actions.yaml "backbone.source=$out/pretrained" \
    "start_from=$out/pretrained_policy"
once "$out/acting" $robot export "$out/actions" --backbone -o "$out/acting"
once "$out/acting_policy" $robot export "$out/actions" -o "$out/acting_policy"

stage "6 of 8: actions, every instruction as often as the others"
train balanced demo_balanced.yaml "backbone.source=$out/acting" "start_from=$out/acting_policy"
once "$out/frozen" $robot export "$out/balanced" --backbone -o "$out/frozen"
once "$out/balanced_policy" $robot export "$out/balanced" -o "$out/balanced_policy"

stage "7 of 8: loops, codecs and head, the transformer frozen"
train adapt demo_adapt.yaml "backbone.source=$out/frozen" "start_from=$out/balanced_policy"

stage "8 of 8: the checkpoint"
once "$out/policy" $robot export "$out/adapt" --whole -o "$out/policy"
echo "evaluate it: $robot eval --env canvas_robot/WidowXReach-v0 --policy $out/policy --episodes 200"
