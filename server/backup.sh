#!/usr/bin/env bash
# Save the server of mlflow-compose.yml into a folder while it runs: server/backup.sh FOLDER
# The database first: its runs then name no artifact that came after the copy of the bucket began.
set -euo pipefail
cd "$(dirname "$0")/.."
mkdir -p "${1:?give the folder to save into}"
folder="$(cd "$1" && pwd)"
umask 077
docker compose -f mlflow-compose.yml exec -T postgres pg_dump -U mlflow -d mlflow -Fc > "$folder/mlflow.dump.part"
mv "$folder/mlflow.dump.part" "$folder/mlflow.dump"
docker compose -f mlflow-compose.yml run --rm -T -v "$folder:/backup" bucket /server/artifact_backup.py save /backup/bucket
