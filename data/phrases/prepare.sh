#!/usr/bin/env bash
# Makes the demo corpus ready for fairseq-train: generated text, joint BPE, binarized data.
#
# Usage:   prepare.sh OUT_DIR
# Needs:   python with requirements.txt of this folder, and fairseq-preprocess, both on the PATH
# Outputs: OUT_DIR/raw        {train,valid,test}.{de,en}, plain text, checked against SHA256SUMS
#          OUT_DIR/bpe        the same in pieces
#          OUT_DIR/spm.model  the SentencePiece model
#          OUT_DIR/bin        what fairseq-train takes
#
# Finished steps are skipped. A step works in NAME.partial and is renamed when complete; it then
# holds a RECIPE of what it was made from. A folder without one is somebody else's and is left.
set -euo pipefail

if [[ $# -ne 1 ]]; then
  echo "usage: $0 OUT_DIR" >&2
  exit 2
fi
here="$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)"
out="$1"
mkdir -p "$out"

# What a step was made from: the checksums of the text, and how it is cut into pieces.
recipe() { sha256sum <"$here/subwords.py" | cat "$here/SHA256SUMS" -; }
finished() { cmp -s <(recipe) "$1/RECIPE"; }
begin() { rm -rf "$1.partial" && mkdir "$1.partial"; }
finish() {
  recipe >"$1.partial/RECIPE"
  rm -rf "$1"
  mv "$1.partial" "$1"
}

for folder in bpe bin; do
  if [[ -e $out/$folder && ! -e $out/$folder/RECIPE ]]; then
    echo "prepare.sh: $out/$folder is not mine: give another OUT_DIR, or remove it" >&2
    exit 1
  fi
done

echo "raw: $(python "$here/generate.py" "$out/raw")"

if finished "$out/bpe"; then
  echo "bpe: $out/bpe: already complete"
else
  rm -rf "${out:?}/bin" # made from other pieces
  begin "$out/bpe"
  python "$here/subwords.py" "$out/raw" "$out/bpe.partial"
  finish "$out/bpe"
  echo "bpe: $out/bpe: done"
fi
if ! cmp -s "$out/bpe/spm.model" "$out/spm.model"; then
  cp "$out/bpe/spm.model" "$out/spm.model.partial"
  mv "$out/spm.model.partial" "$out/spm.model"
fi

if finished "$out/bin"; then
  echo "bin: $out/bin: already complete"
else
  begin "$out/bin"
  if ! fairseq-preprocess --source-lang de --target-lang en --joined-dictionary --workers 1 \
    --trainpref "$out/bpe/train" --validpref "$out/bpe/valid" --testpref "$out/bpe/test" \
    --destdir "$out/bin.partial" >"$out/preprocess.log" 2>&1; then
    echo "prepare.sh: fairseq-preprocess failed; its last words:" >&2
    tail -n 5 "$out/preprocess.log" >&2
    exit 1
  fi
  rm "$out/preprocess.log"
  finish "$out/bin"
  echo "bin: $out/bin: $(wc -l <"$out/bin/dict.en.txt") types in the joined dictionary"
fi
