# Freezeline itself. CPU by default; --build-arg DEVICE=cuda takes pip's default Linux build of torch, which carries CUDA.
#
#   docker build -t freezeline:local .
#   docker run --rm -v PICTURES:/pictures:ro -v searches:/home/freezeline/home freezeline:local -P data=/pictures
#
# The search service of mlflow-compose.yml is the same with the team's server.
FROM python:3.11.7-slim-bookworm

ARG DEVICE=cpu
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONDONTWRITEBYTECODE=1

RUN useradd --create-home --uid 10002 freezeline \
    && mkdir /home/freezeline/home && chown freezeline /home/freezeline/home

# The packages change less often than the code, so they come first; torch, by far the largest, before all.
WORKDIR /app
COPY requirements.txt .
RUN if [ "$DEVICE" = cpu ]; then index="--index-url https://download.pytorch.org/whl/cpu"; fi; \
    grep -E '^(torch|torchvision)==' requirements.txt | xargs pip install $index
RUN pip install -r requirements.txt

COPY --chown=freezeline . .
USER freezeline
ENV FREEZELINE_HOME=/home/freezeline/home MLFLOW_DISABLE_TELEMETRY=true GIT_PYTHON_REFRESH=quiet
ENTRYPOINT ["mlflow", "run", "/app", "-e", "tune", "--env-manager", "local"]
