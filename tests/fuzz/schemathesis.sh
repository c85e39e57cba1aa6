#!/usr/bin/env bash
# Holds the published description of the API against a real node: `schemathesis.sh PROGRAM [OPTION...]`, from the
# repository. All phases with an operator's token, and what can be asked without one. The node is one of a cluster of
# its own that is thrown away. What is valid by its schema may still be refused (a name that is taken, a token to
# continue a list with that nobody gave), so that check is left out; and so is the stream of changes, which does not end.
set -euo pipefail

program=$1
shift
flintctl=.venv/bin/flintctl
cluster=$(mktemp -d)
trap '"$flintctl" dev down --dir "$cluster" >/dev/null; rm -rf "$cluster"' EXIT
"$flintctl" dev up --driver simulated --nodes 1 --hosts 1 --dir "$cluster" >/dev/null
eval "$("$flintctl" dev env --dir "$cluster")"

run() {
  "$program" --no-color run schemas/openapi.json --url "$FLINTLOCK_ENDPOINTS" --tls-verify "$FLINTLOCK_CA_FILE" \
    --exclude-checks positive_data_acceptance --exclude-path-regex '/watch$' --request-timeout 65 --workers 2 "$@"
}
run --header "Authorization: Bearer $FLINTLOCK_TOKEN" --phases coverage,fuzzing,stateful --max-examples 15 "$@"
run --phases coverage --max-examples 5 --include-method GET "$@"
