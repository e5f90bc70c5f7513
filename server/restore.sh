#!/usr/bin/env bash
# Bring back what backup.sh saved: server/restore.sh FOLDER. What the database holds now is replaced.
set -euo pipefail
cd "$(dirname "$0")/.."
folder="$(cd "${1:?give the folder of a backup}" && pwd)"
test -s "$folder/mlflow.dump" || { echo "there must be a mlflow.dump in $folder; backup.sh makes one" >&2; exit 2; }
docker compose -f mlflow-compose.yml stop mlflow
docker compose -f mlflow-compose.yml exec -T postgres pg_restore -U mlflow -d mlflow --clean --if-exists \
  --single-transaction < "$folder/mlflow.dump"
docker compose -f mlflow-compose.yml run --rm -T -v "$folder:/backup" bucket /server/artifact_backup.py load /backup/bucket
docker compose -f mlflow-compose.yml up -d --wait
