# The front door. `make up` and `make test` need nothing but a Linux machine with Rust, Go and a C compiler.
IMG ?= stoker.dev/stoker-operator:v0.1.0
# The warden has a version of its own: another one restarts every tenant.
WARDEN_IMG ?= $(dir $(IMG))stoker-warden:v0.1.0
NODE_IMG ?= $(dir $(IMG))stoker-node:v0.1.0
IMAGES = IMG=$(IMG) WARDEN_IMG=$(WARDEN_IMG) NODE_IMG=$(NODE_IMG)
LAB = cargo run --quiet --package stoker-lab --

# Where `make build` leaves its programs.
BUILD = $(or $(CARGO_TARGET_DIR),target)/release

.PHONY: up down build test lint gen bench docker-build docker-push deploy requirements

up: requirements ## Management cluster, operator, tenant, worker, workload; a second run does nothing in seconds.
	$(LAB) up

down: requirements ## Leave the machine as it was.
	$(LAB) down

build: requirements ## The operator and stokerctl, for this machine; stokerctl is a kubectl plugin too.
	cargo build --release --package stoker-operator --package stokerctl
	ln -sf stokerctl $(BUILD)/kubectl-stoker
	@echo "built $(BUILD)/stoker-operator, $(BUILD)/stokerctl and, for kubectl stoker, $(BUILD)/kubectl-stoker"

test: requirements ## Every test, unit to end-to-end.
	hack/test.sh

lint: requirements ## Formatting, clippy, licences, generated files.
	hack/lint.sh

gen: requirements ## Write crds/ and manifests/.
	cargo xtask gen

bench: requirements ## Print the figures; BENCH=birth, ten, idle, heal or all.
	cargo xtask bench $(or $(BENCH),all)

docker-build: requirements ## The images of the operator, the warden and stoker-node, static and without root.
	$(IMAGES) hack/image.sh build

docker-push: ## Push them.
	$(IMAGES) hack/image.sh push

deploy: requirements ## Install Stoker with the images IMG, WARDEN_IMG and NODE_IMG on the cluster of the current kubeconfig.
	cargo xtask manifest --image $(IMG) --warden-image $(WARDEN_IMG) --node-image $(NODE_IMG) | kubectl apply --server-side -f -

requirements:
	@hack/requirements.sh
