#!/bin/sh
# The same load on Myelin and on Debian's victoria-metrics and prometheus, one after the other: each server on the first CPU, the
# bench on the second, a fresh data directory below $TMPDIR, CPU time counted until the server has been quiet for ten seconds.
#
#   sh bench/compare.sh                      steady: 100 k series x 60 scrapes
#   sh bench/compare.sh --workload churn     any option of `myelin-bench write`
#   TARGETS="myelin prometheus" sh bench/compare.sh
#
# TMPDIR should be on a real disk: on tmpfs a sync costs nothing. A server that is not installed is left out, and said so. Prints one report after the other, then samples a CPU-second.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root"
cargo build --release --locked -p myelin -p myelin-bench
bin=${CARGO_TARGET_DIR:-$root/target}/release
work=$(mktemp -d)
server=
trap 'if [ -n "$server" ]; then kill "$server" 2>/dev/null || true; wait "$server" 2>/dev/null || true; fi; rm -rf "$work"' EXIT
trap 'exit 1' INT TERM
pin() {
	cpu=$1
	shift
	if [ "$(nproc --all)" -gt 1 ] && command -v taskset >/dev/null; then exec taskset -c "$cpu" "$@"; else exec "$@"; fi
}

for target in ${TARGETS:-myelin victoria-metrics prometheus}; do
	data=$work/$target
	url=http://127.0.0.1:19009/api/v1/write
	case $target in
	myelin)
		url=http://127.0.0.1:19009/api/v1/push
		set -- "$bin/myelin" -server.http-listen-port=19009 -server.grpc-listen-port=19095 -data.dir="$data" -self-scrape.interval=0 -- "$@"
		;;
	victoria-metrics)
		set -- victoria-metrics -httpListenAddr=127.0.0.1:19009 -storageDataPath="$data" -- "$@"
		;;
	prometheus)
		set -- prometheus --config.file=/dev/null --web.enable-remote-write-receiver \
			--web.listen-address=127.0.0.1:19009 --storage.tsdb.path="$data" -- "$@"
		;;
	*)
		echo "no such target: $target" >&2
		exit 2
		;;
	esac
	if ! command -v "$1" >/dev/null; then
		echo "== $target is not installed: left out"
		while [ "$1" != -- ]; do shift; done
		shift
		continue
	fi
	# What stands before `--` is the command of the server, what follows are the options of the bench.
	command=
	while [ "$1" != -- ]; do
		command="$command $1"
		shift
	done
	shift
	echo "== $target"
	# Paths of mktemp and of the build have no blanks that would be split here.
	# shellcheck disable=SC2086
	(pin 0 $command) >"$work/$target.log" 2>&1 &
	server=$!
	sleep 3
	if ! kill -0 "$server" 2>/dev/null; then
		echo "$target did not start:" >&2
		tail -n 5 "$work/$target.log" >&2
		exit 1
	fi
	(pin 1 "$bin/myelin-bench" write --url "$url" --pid "$server" --wait-quiet 10 "$@") | tee "$work/$target.report"
	kill "$server"
	wait "$server" 2>/dev/null || true
	server=
	sed -n "s/^server CPU.* \([0-9]*\) samples a CPU-second.*/$(printf %-20s "$target")\1 samples a CPU-second/p" \
		"$work/$target.report" >>"$work/summary"
	sed -n "s/^server memory.*: \([0-9-]*\) bytes a series/$(printf %-20s "$target")\1 bytes a series/p" \
		"$work/$target.report" >>"$work/summary"
done
echo "== summary"
cat "$work/summary"
