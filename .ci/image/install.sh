#!/bin/sh
# What the image is made of, put below a folder: install.sh SOURCE ROOT EXTRA
#   SOURCE  a checkout of servingd
#   ROOT    where the image's file system begins: "" in the image, a scratch folder in a test
#   EXTRA   cpu or gpu: which TensorFlow
set -eu

source=$1
root=$2
extra=$3
home=$root/opt/servingd

case $extra in
cpu | gpu) ;;
*)
    echo "install.sh: EXTRA: expected cpu or gpu, got '$extra'" >&2
    exit 2
    ;;
esac

python3 -m venv "$home"
# shellcheck disable=SC2086 # PIP_OPTIONS is a list
"$home/bin/python" -m pip install --quiet --no-cache-dir --disable-pip-version-check \
    ${PIP_OPTIONS:-} -c "$source/.ci/constraints.txt" "$source[$extra]"

# What only building extensions of TensorFlow needs.
rm -rf "$home"/lib/python3*/site-packages/tensorflow/include

# The root file system may be read-only: nothing is to be compiled at run time.
"$home/bin/python" -m compileall -q -j 0 "$home"/lib || true

mkdir -p "$root/usr/bin" "$root/models" "$root/var/cache/servingd"
chmod 0700 "$root/var/cache/servingd"
for program in servingd tensorflow_model_server; do
    ln -sf "$home/bin/$program" "$root/usr/bin/$program"
done
cp "$source/.ci/image/entrypoint.sh" "$root/usr/bin/tf_serving_entrypoint.sh"
chmod 0755 "$root/usr/bin/tf_serving_entrypoint.sh"
