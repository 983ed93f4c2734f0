#!/bin/sh
# cibuildwheel runs this in the checkout before it builds wheels, to get libremctl and its licence.

set -eu

sh ci/build-libremctl.sh /tmp/libremctl
# The licence must accompany copies, and a static library is one.
cp /tmp/libremctl/LICENSE LICENSE.libremctl
cp /tmp/libremctl/libremctl.cdx.json .
