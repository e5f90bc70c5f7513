#!/usr/bin/env bash
# Restore a backup of backup.sh: server/restore.sh FOLDER. The current content of the database is replaced.
set -euo pipefail
cd "$(dirname "$0")/.."
folder="$(cd "${1:?give the folder of a backup}" && pwd)"
test -s "$folder/mlflow.dump" || { echo "$folder must contain mlflow.dump; create it with server/backup.sh" >&2; exit 2; }
docker compose -f mlflow-compose.yml stop mlflow
docker compose -f mlflow-compose.yml exec -T postgres pg_restore -U mlflow -d mlflow --clean --if-exists \
  --single-transaction < "$folder/mlflow.dump"
docker compose -f mlflow-compose.yml run --rm -T -v "$folder:/backup" bucket /server/artifact_backup.py load /backup/bucket
docker compose -f mlflow-compose.yml up -d --wait
