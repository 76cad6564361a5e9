#!/usr/bin/env bash
# Prints the PrometheusRule that holds deploy/prometheus/rules: rules.sh > prometheusrule.yaml
set -euo pipefail
cd "$(dirname "$0")/../../prometheus/rules"
printf '# Written by rules.sh.\napiVersion: monitoring.coreos.com/v1\nkind: PrometheusRule\nmetadata:\n  name: sluiced\nspec:\n  groups:\n'
for file in recording.yml alerts.yml; do
  sed -e '/^#/d' -e '/^groups:$/d' -e 's/^/  /' "$file"
done
