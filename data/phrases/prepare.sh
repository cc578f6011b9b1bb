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
# holds a copy of the SHA256SUMS it was made from.
set -euo pipefail

if [[ $# -ne 1 ]]; then
  echo "usage: $0 OUT_DIR" >&2
  exit 2
fi
here="$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)"
out="$1"
mkdir -p "$out"

finished() { cmp -s "$here/SHA256SUMS" "$1/SHA256SUMS"; }
begin() { rm -rf "$1.partial" && mkdir "$1.partial"; }
finish() {
  cp "$here/SHA256SUMS" "$1.partial/SHA256SUMS"
  rm -rf "$1"
  mv "$1.partial" "$1"
}

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
