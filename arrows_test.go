package berth_test

import (
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/berthoci/berth"

// rooms says, for each package that ships, which packages of this module it may know. A room that is
// not listed here is not in the design.
var rooms = map[string][]string{
	".":                         {},
	"manifest":                  {"."},
	"manifest/schema1":          {".", "manifest"},
	"internal/ocirequest":       {"."},
	"internal/control":          {"."},
	"internal/durable":          {"."},
	"internal/retry":            {},
	"internal/smallfile":        {},
	"internal/strictyaml":       {},
	"internal/canary":           {},
	"internal/registrytest":     {".", "manifest", "manifest/schema1"},
	"internal/memory":           {".", "manifest/schema1", "internal/ocirequest"},
	"internal/hostile":          {".", "internal/canary", "internal/ocirequest"},
	"ocilayout":                 {".", "manifest", "manifest/schema1", "internal/ocirequest", "internal/control", "internal/durable"},
	"cmd/torture":               {".", "manifest", "ocilayout"},
	"server":                    {".", "manifest", "manifest/schema1", "internal/ocirequest", "internal/strictyaml"},
	"plugin":                    {".", "internal/control", "plugin/internal/controlpb"},
	"plugin/internal/controlpb": {},
	"host":                      {".", "plugin", "internal/control"},
	"sdk/remote/auth":           {".", "internal/ocirequest", "internal/retry", "internal/smallfile"},
	"sdk/remote":                {".", "manifest", "manifest/schema1", "internal/ocirequest", "internal/retry", "internal/smallfile", "sdk/remote/auth"},
	"sdk/source":                {".", "manifest", "internal/durable", "sdk/remote"},
	"sdk/pin":                   {".", "manifest", "manifest/schema1", "internal/durable", "sdk/remote"},
	"sdk/sync":                  {".", "manifest", "internal/durable", "sdk/remote"},
	"sdk":                       {".", "manifest", "manifest/schema1", "internal/retry", "host", "plugin", "sdk/pin", "sdk/remote", "sdk/remote/auth", "sdk/source", "sdk/sync"},
	"sdk/embedded":              {".", "host", "internal/control", "ocilayout", "plugin", "server"},
	"sdk/berthtest":             {".", "host", "internal/ocirequest", "manifest", "sdk", "sdk/embedded", "sdk/remote/auth", "sdk/source"},
	"cmd/berth":                 {".", "host", "internal/smallfile", "internal/strictyaml", "manifest", "plugin", "sdk", "sdk/embedded", "sdk/pin", "sdk/remote", "sdk/source", "sdk/sync", "server"},
	"cmd/canaries":              {"internal/canary"},
	"cmd/crowd":                 {".", "internal/control", "ocilayout"},
	"examples/buildtool":        {"host", "sdk", "sdk/embedded"},
	"examples/onefile":          {"host", "sdk", "sdk/embedded", "sdk/source"},
	"examples/hermetic":         {},
	"examples/quickstart":       {"sdk", "sdk/pin", "sdk/source"},
	"examples/quickstart/hello": {},
}

// adapters are modules of their own. They know the contract and what it takes to speak of it, and neither a layout
// nor a process: a program that already uses berth links nothing more of it by them.
var adapters = map[string][]string{
	"adapters/containerd": {".", "manifest", "sdk/source"},
	"adapters/ggcr":       {".", "manifest", "sdk/remote/auth", "sdk/source"},
	"adapters/orasgo":     {".", "manifest", "sdk/source"},
}

// Every import points down, siblings do not know each other, and what a tool imports does not link
// the store.
func TestArrows(t *testing.T) { checkArrows(t, imports(t, "."), rooms) }

func TestAdaptersKnowTheContractAlone(t *testing.T) {
	modules, err := filepath.Glob("adapters/*/go.mod")
	if err != nil {
		t.Fatal(err)
	}
	found := map[string][]string{}
	for _, file := range modules {
		maps.Copy(found, imports(t, filepath.Dir(file)))
	}
	checkArrows(t, found, adapters)
}

func checkArrows(t *testing.T, found, rooms map[string][]string) {
	t.Helper()
	for room, imported := range found {
		allowed, known := rooms[room]
		if !known {
			t.Errorf("package %s is not a room of the design", room)
			continue
		}
		for _, to := range imported {
			if !slices.Contains(allowed, to) {
				t.Errorf("%s imports %s", room, to)
			}
		}
	}
	for room := range rooms {
		if found[room] == nil {
			t.Errorf("room %s is empty", room)
		}
	}
}

func TestSDKDoesNotLinkTheStore(t *testing.T) {
	found := imports(t, ".")
	seen := map[string]bool{}
	var visit func(string)
	visit = func(room string) {
		if seen[room] {
			return
		}
		seen[room] = true
		for _, to := range found[room] {
			visit(to)
		}
	}
	visit("sdk")
	for _, heavy := range []string{"ocilayout", "server", "sdk/embedded"} {
		if seen[heavy] {
			t.Errorf("importing sdk links %s", heavy)
		}
	}
}

// imports returns, for each package of the module at root that ships, the packages of berth's own module that
// it imports. Modules nested in it have arrows of their own.
func imports(t *testing.T, root string) map[string][]string {
	t.Helper()
	found := map[string]map[string]bool{}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && path != root && (nested(path) || strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata" || d.Name() == "bin" || d.Name() == "out"):
			return fs.SkipDir
		case d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go"):
			return nil
		}
		room := filepath.ToSlash(filepath.Dir(path))
		if found[room] == nil {
			found[room] = map[string]bool{}
		}
		return collect(path, found[room])
	})
	if err != nil {
		t.Fatal(err)
	}
	all := map[string][]string{}
	for room, set := range found {
		all[room] = append([]string{}, slices.Sorted(maps.Keys(set))...)
	}
	return all
}

func nested(dir string) bool {
	matches, _ := filepath.Glob(filepath.Join(dir, "go.mod"))
	return len(matches) > 0
}

func collect(path string, into map[string]bool) error {
	file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
	if err != nil {
		return err
	}
	for _, spec := range file.Imports {
		name := strings.Trim(spec.Path.Value, `"`)
		switch rest, ok := strings.CutPrefix(name, module); {
		case ok && rest == "":
			into["."] = true
		case ok && rest[0] == '/':
			into[rest[1:]] = true
		}
	}
	return nil
}
