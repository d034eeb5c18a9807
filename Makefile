# Everything that is done with this repository. `make help` lists it.

BIN ?= $(CURDIR)/bin
TOOLS := $(CURDIR)/bin/tools
VERSION_OF_TOOLS := internal/tools/go.mod
ADAPTERS := adapters/containerd adapters/ggcr adapters/orasgo
MODULES := . $(ADAPTERS) internal/e2e internal/e2e/buildkit internal/tools
ROUNDS ?= 1000
CUTS ?= 100
KILLS ?= 200
PUSHES ?= 10000
OPERATIONS ?= 110000
PEERS ?=
# What is added to a program that says hello, at most: packages, and MiB of its binary. CHANGELOG.md tells what it is.
WEIGHTS := sdk.Open=345,22 sdk/remote.New=160,8 sdk/remote/auth.Docker=150,8 sdk/pin.Load=125,4 sdk/source.Layout=95,4 sdk/embedded.Main=340,22
export PATH := $(CURDIR)/bin:$(TOOLS):$(PATH)

.DEFAULT_GOAL := help

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: build ## do the main job once: build, push, pin, sync
	@mkdir -p out/demo
	go run ./examples/quickstart out/demo

build: ## build bin/berth
	CGO_ENABLED=0 go build -tags grpcnotrace -o $(BIN)/berth ./cmd/berth

test: canaries ## run the tests, which may tell no secret
	canaries ./...
	@for m in $(ADAPTERS); do (cd $$m && canaries ./...) || exit 1; done

canaries:
	@go build -o $(TOOLS)/canaries ./cmd/canaries

race: ## run the tests under the race detector
	go test -race ./...
	@for m in $(ADAPTERS); do (cd $$m && go test -race ./...) || exit 1; done

lint: $(TOOLS)/staticcheck ## gofmt, go vet, staticcheck, buf lint
	@test -z "$$(gofmt -l $$(git ls-files '*.go'))" || { gofmt -l $$(git ls-files '*.go'); echo "run gofmt -w on these"; exit 1; }
	go vet ./...
	staticcheck ./...
	@for m in $(ADAPTERS) internal/e2e internal/tools; do echo "$$m"; (cd $$m && go vet ./... && staticcheck ./...) || exit 1; done

torture: ## kill -9 a store ROUNDS times, race PUSHES with a collection, compare OPERATIONS with the model
	go build -o bin/torture ./cmd/torture
	bin/torture torture --rounds $(ROUNDS)
	go test ./ocilayout -count=1 -v -timeout 60m -run TestCollectionBetraysNoPush -pushes $(PUSHES)
	go test ./ocilayout -count=1 -v -timeout 60m -run TestALayoutDoesAsTheModel -operations $(OPERATIONS)

buildtool: ## build bin/buildtool, which has berth within itself
	CGO_ENABLED=0 go build -tags grpcnotrace -o $(BIN)/buildtool ./examples/buildtool

crowd: buildtool ## open one layout by fifty processes ROUNDS times, and KILLS times with some of them killed
	go build -o $(BIN)/crowd ./cmd/crowd
	$(BIN)/crowd --rounds $(ROUNDS) $(BIN)/buildtool
	$(BIN)/crowd --rounds $(KILLS) --kill --images 20 $(BIN)/buildtool

powercut: ## cut the power of a store under load CUTS times, and look at what it left (root, Linux)
	go build -o bin/torture ./cmd/torture
	bin/torture powercut --cuts $(CUTS)

bench: ## compare store and server with their floors: ratios of medians, of one run
	go test ./ocilayout ./server ./sdk/berthtest -run '^$$' -bench . -benchtime 1x -timeout 30m

bench-peers: ## compare berth with the distribution registry and crane's: PEERS='-rows 2,3' measures some rows
	cd internal/e2e && go build -o $(CURDIR)/bin/peers ./peers && $(CURDIR)/bin/peers $(PEERS)

weight: ## tell what packages cost those who import them, and fail where it is more than their budget
	@cd internal/tools && go run ./weight ../.. $(WEIGHTS)

e2e: canaries ## drive real programs: docker, podman, buildah, BuildKit, skopeo, crane, regctl, a browser and more
	cd internal/e2e && canaries -count=1 -timeout 20m ./...

conformance: build ## run the distribution specification's suite, which CONFORMANCE=PATH names
	@cd internal/e2e && go build -o $(CURDIR)/bin/conformance ./conformance
	@conformance bin/berth "$(CONFORMANCE)"

generate: $(TOOLS)/buf ## generate the control plane's code from its .proto
	buf lint
	buf generate

generate-check: generate ## fail if generated code is not what is committed
	@git diff --exit-code -- plugin/internal/controlpb || { echo "run make generate and commit"; exit 1; }

tidy-check: ## fail if a go.mod or go.sum is not tidy
	@for m in $(MODULES); do (cd $$m && go mod tidy -diff) || { echo "run go mod tidy in $$m"; exit 1; }; done

cross: ## build and vet for linux, darwin and windows
	@for target in linux/arm64 darwin/arm64 windows/amd64; do \
		echo "$$target"; export GOOS=$${target%/*} GOARCH=$${target#*/}; \
		for m in . $(ADAPTERS); do (cd $$m && go build ./... && go vet ./...) || exit 1; done || exit 1; done

clean: ## remove what was built
	rm -rf bin out

$(TOOLS)/staticcheck: $(VERSION_OF_TOOLS)
	cd internal/tools && go build -o $(TOOLS)/ honnef.co/go/tools/cmd/staticcheck
	@touch $@

$(TOOLS)/buf: $(VERSION_OF_TOOLS)
	cd internal/tools && go build -o $(TOOLS)/ github.com/bufbuild/buf/cmd/buf google.golang.org/protobuf/cmd/protoc-gen-go google.golang.org/grpc/cmd/protoc-gen-go-grpc
	@touch $@

.PHONY: help demo build test canaries race lint bench bench-peers weight torture powercut e2e conformance generate generate-check tidy-check cross clean
