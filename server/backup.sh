#!/usr/bin/env bash
# Back up the server of mlflow-compose.yml to a folder while it runs: server/backup.sh FOLDER
# The database is saved first, so that its runs refer only to artifacts that the copy of the bucket contains.
set -euo pipefail
cd "$(dirname "$0")/.."
mkdir -p "${1:?give the folder to save into}"
folder="$(cd "$1" && pwd)"
umask 077
docker compose -f mlflow-compose.yml exec -T postgres pg_dump -U mlflow -d mlflow -Fc > "$folder/mlflow.dump.part"
mv "$folder/mlflow.dump.part" "$folder/mlflow.dump"
docker compose -f mlflow-compose.yml run --rm -T -v "$folder:/backup" bucket /server/artifact_backup.py save /backup/bucket
