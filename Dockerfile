# Image of Freezeline. CPU by default; --build-arg DEVICE=cuda installs pip's default Linux build of torch, with CUDA.
#
#   docker build -t freezeline:local .
#   docker run --rm -v FOLDER:/images:ro -v searches:/home/freezeline/home freezeline:local -P data=/images
#
# --entrypoint freezeline runs the commands that a search prints, such as resume.
#
# The search service of mlflow-compose.yml runs the same image with the tracking server.
FROM python:3.11.7-slim-bookworm

ARG DEVICE=cpu
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONDONTWRITEBYTECODE=1

RUN useradd --create-home --uid 10002 freezeline \
    && mkdir /home/freezeline/home && chown freezeline /home/freezeline/home

# Packages change less often than the code, so their layers come first; torch, by far the largest, is the very first.
WORKDIR /app
COPY requirements.txt .
RUN if [ "$DEVICE" = cpu ]; then index="--index-url https://download.pytorch.org/whl/cpu"; fi; \
    grep -E '^(torch|torchvision)==' requirements.txt | xargs pip install $index
RUN pip install -r requirements.txt

COPY --chown=freezeline . .
RUN pip install --no-deps --editable .
USER freezeline
ENV FREEZELINE_HOME=/home/freezeline/home MLFLOW_DISABLE_TELEMETRY=true GIT_PYTHON_REFRESH=quiet
ENTRYPOINT ["mlflow", "run", "/app", "-e", "tune", "--env-manager", "local"]
