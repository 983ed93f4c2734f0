#!/bin/sh
# What cibuildwheel runs once before it builds wheels, in the checkout: libremctl and its licence.

set -eu

sh ci/build-libremctl.sh /tmp/libremctl
# The licence asks to go along with copies, and a static library is one.
cp /tmp/libremctl/LICENSE LICENSE.libremctl
cp /tmp/libremctl/libremctl.cdx.json .
