#!/usr/bin/env bash
# From the folder of a training to a number that can be published and a model that can be served:
# average, decode, score; fold, and verify that the plain model translates the same without the
# plugin; export.
#
# Usage:   bash scripts/evaluate.sh RUN_DIR [options]
#   --data DIR                  what fairseq-preprocess wrote (default: where the training took it)
#   --subset NAME               split to translate (default: test)
#   --num-epoch-checkpoints N, --num-update-checkpoints N, --checkpoint-upper-bound M
#                               average as `fairseq-admin average` does (default: no mean,
#                               checkpoint_best.pt)
#   --reference FILE            raw text of the target side (default: the binarized target)
#   --moses                     the data is Moses-tokenized
#   --decoding FLAGS            of fairseq-generate (default: beam 5, SentencePiece undone)
#   --sentencepiece MODEL       also export the model, for `fairseq-admin translate`
#   --quantization TYPE         of the exported model, for example int8 (default: float32)
#   --to STEP                   stop after average, decode or score (default: fold, and all the rest)
#   --output DIR                (default: RUN_DIR/eval)
# Inputs:  RUN_DIR/checkpoint*.pt, RUN_DIR/train.log (for the curves) if there is one.
# Needs:   fairseq_admin installed, its commands on the PATH.
# Outputs: in DIR: record.json; generate.txt, score.json; of an Admin model folded.pt, folded.txt;
#          mean.pt where checkpoints were averaged; serve/ where it was exported.
#
# What is finished is not done again while checkpoints and options are the same. A second start for
# the same DIR waits for the first.
set -euo pipefail

die() {
    printf 'evaluate: error: %s\n' "$*" >&2
    exit 1
}
say() { printf 'evaluate: %s\n' "$*"; }

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
run='' data='' subset=test reference='' sentencepiece='' quantization='' to=fold out=''
decoding='--beam 5 --max-len-a 1.2 --max-len-b 10 --remove-bpe sentencepiece --batch-size 100'
every_sentence='--required-batch-size-multiple 1' # else fairseq leaves out an odd last batch
average=() scoring=()
while [[ $# -gt 0 ]]; do
    case $1 in
    -h | --help)
        sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}"
        exit
        ;;
    --moses)
        scoring+=("$1")
        shift
        continue
        ;;
    -*)
        [[ $# -ge 2 ]] || die "$1 needs a value"
        case $1 in
        --data) data=$2 ;;
        --subset) subset=$2 ;;
        --num-epoch-checkpoints | --num-update-checkpoints | --checkpoint-upper-bound)
            average+=("$1" "$2")
            ;;
        --reference) reference=$2 ;;
        --decoding) decoding=$2 ;;
        --sentencepiece) sentencepiece=$2 ;;
        --quantization) quantization=$2 ;;
        --to) to=$2 ;;
        --output) out=$2 ;;
        *) die "unknown option $1, see --help" ;;
        esac
        shift 2
        ;;
    *)
        [[ -z $run ]] || die "one folder at a time: $run, $1"
        run=${1%/}
        shift
        ;;
    esac
done
[[ $to =~ ^(average|decode|score|fold)$ ]] || die "--to $to: give average, decode, score or fold"
[[ -n $run ]] || die "which run? give the folder of its checkpoints, see --help"
[[ -d $run ]] || die "no such folder: $run"
[[ -z $reference || -f $reference ]] || die "no such reference: $reference"
[[ -z $data ]] || compgen -G "$data/dict.*.txt" >/dev/null || die "no binarized data in $data"
out=${out:-$run/eval}
mkdir -p "$out"

# up_to STEP: ends here if no more is wanted
up_to() { [[ $to != "$1" ]] || exit 0; }
# done_already NAME: whether that output is there; all are removed when an input changed.
done_already() { [[ -e $out/$1 ]]; }
# into NAME COMMAND...: the output of a command, which is there when the command has succeeded.
into() {
    local name=$1
    shift
    if ! "$@" >"$out/$name.partial" 2>"$out/$name.log"; then
        tail -n 3 "$out/$name.log" >&2
        die "this failed, see $out/$name.log: $*"
    fi
    mv "$out/$name.partial" "$out/$name"
    rm "$out/$name.log"
}
exec 9>>"$out/lock" # held by the commands started here too: a killed script's translation goes on
flock --nonblock 9 || {
    say "waiting for another evaluation into $out"
    flock 9
}
inputs() {
    stat -c '%n %s %Y' "$run"/checkpoint*.pt 2>/dev/null || die "no checkpoint*.pt in $run"
    stat -c '%n %s %Y' "$reference" "$sentencepiece" "$data"/*.bin 2>/dev/null || true
    printf '%s\n' "$data" "$subset" "${average[*]}" "$reference" "${scoring[*]}" "$decoding" \
        "$sentencepiece" "$quantization"
    cat "$here"/evaluate.sh "$here"/records/record.py | sha256sum
}
inputs >"$out/inputs.partial"
if ! cmp -s "$out/inputs.partial" "$out/inputs"; then
    rm -rf "${out:?}"/{mean.pt,folded.pt,generate.txt,folded.txt,fold.txt,score.json,serve,export.txt,summary.txt,record.json}
fi
mv "$out/inputs.partial" "$out/inputs"

if done_already record.json; then
    cat "$out/summary.txt"
    say "$out/record.json was already there"
    exit
fi

model=$run/checkpoint_best.pt
if [[ ${#average[@]} -gt 0 ]]; then
    model=$out/mean.pt
    done_already mean.pt || fairseq-admin average "$run" "${average[@]}" --output "$model"
fi
[[ -f $model ]] || die "$model is missing: average with --num-epoch-checkpoints instead"
up_to average

# What the checkpoint says of itself: its data folder, its languages, whether it has omegas.
described=$(python -W ignore - "$model" "$data" <<'PYTHON'
import os
import sys

from fairseq_admin.checkpoints.checkpoint import is_admin, read_checkpoint
from fairseq_admin.serving.export import languages

state = read_checkpoint(sys.argv[1])
data = sys.argv[2] or state["cfg"]["task"]["data"]
if not os.path.isdir(data):
    sys.exit(f"evaluate: error: no such data folder: {data}: give --data")
print(data, *languages(state, data), "admin" if is_admin(state) else "plain", sep="\t")
PYTHON
)
IFS=$'\t' read -r data source lang kind <<<"${described##*$'\n'}"

# decode NAME CHECKPOINT [PLUGIN...]: stdout and log of fairseq-generate, every sentence counted
decode() {
    local name=$1 checkpoint=$2
    shift 2
    say "translating $subset by $checkpoint"
    # shellcheck disable=SC2086  # the flags are words
    into "$name" fairseq-generate "$data" "$@" -s "$source" -t "$lang" --path "$checkpoint" \
        --gen-subset "$subset" $decoding $every_sentence
}

# with the plugin, which lets torch load the checkpoints of fairseq's own models too
done_already generate.txt || decode generate.txt "$model" --user-dir fairseq_admin
up_to decode
if ! done_already score.json; then
    [[ -z $reference ]] || scoring+=(--reference "$reference")
    into score.json fairseq-admin score "$out/generate.txt" --target-lang "$lang" "${scoring[@]}"
fi
up_to score
plain=$model
if [[ $kind == admin ]]; then
    if ! done_already fold.txt; then
        into fold.txt fairseq-admin fold "$model" "$out/folded.pt"
    fi
    done_already folded.txt || decode folded.txt "$out/folded.pt"
    plain=$out/folded.pt
fi
if [[ -n $sentencepiece ]] && ! done_already serve; then
    into export.txt fairseq-admin export "$plain" --data "$data" --sentencepiece "$sentencepiece" \
        ${quantization:+--quantization "$quantization"} --output "$out/serve"
fi
into summary.txt python -W ignore "$here" records.record "$run" "$out" "$model" "$data" \
    "${average[*]}" "--gen-subset $subset $decoding $every_sentence"
cat "$out/summary.txt"
say "wrote $out/record.json"
