package main

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/crypto/bcrypt"

	"github.com/berthoci/berth/internal/canary"
	"github.com/berthoci/berth/manifest"
	"github.com/berthoci/berth/sdk/source"
)

// The commands of the scripts, each with its usage.

// exits CODE PROGRAM ARG...
//
// The program ends with that exit code.
func exits(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg || len(args) < 2, "exits CODE PROGRAM ARG...")
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	err = ts.Exec(args[1], args[2:]...)
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		got = exit.ExitCode()
	} else {
		ts.Check(err)
	}
	if got != want {
		ts.Fatalf("exit code %d, want %d", got, want)
	}
}

var progressLine = regexp.MustCompile(`^((sent|fetched|existing|mounted) +sha256:[0-9a-f]{12}  [0-9.]+ [KMG]?i?B|\d+ (synced|removed|unchanged|failed).*; [0-9.]+ [KMG]?i?B (sent|fetched))$`)

// fails CODE PROGRAM ARG...
//
// The program ends with that exit code, and says why in one line, after which the reader of a wrong
// command line is told where to look.
func fails(ts *testscript.TestScript, neg bool, args []string) {
	exits(ts, neg, args)
	var told []string
	for line := range strings.Lines(ts.ReadFile("stderr")) {
		if line = strings.TrimSuffix(line, "\n"); !progressLine.MatchString(line) {
			told = append(told, line)
		}
	}
	if args[0] == "2" && len(told) == 2 && told[1] == "berth: see berth help" {
		told = told[:1]
	}
	if len(told) != 1 || !strings.HasPrefix(told[0], "berth: ") {
		ts.Fatalf("it should say why in one line: %q", told)
	}
}

// warns REGEXP PROGRAM ARG...
//
// The program ends well, and warns of one thing, in one line.
func warns(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg || len(args) < 2, "warns REGEXP PROGRAM ARG...")
	ts.Check(ts.Exec(args[1], args[2:]...))
	var warnings []string
	for line := range strings.Lines(ts.ReadFile("stderr")) {
		if line = strings.TrimSuffix(line, "\n"); !progressLine.MatchString(line) {
			warnings = append(warnings, line)
		}
	}
	if len(warnings) != 1 || !regexp.MustCompile("^berth: warning: "+args[0]).MatchString(warnings[0]) {
		ts.Fatalf("it warns of %q", warnings)
	}
}

// image PLACE LAYER [VARIABLE]
//
// Writes an image of one layer, whose bytes are LAYER, to a place like oci:DIR:NAME. The variable is
// the image's digest, VARIABLE_layer that of the layer.
func image(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg || len(args) < 2 || len(args) > 3, "image PLACE LAYER [VARIABLE]")
	form, path, name, err := source.Split(args[0])
	ts.Check(err)
	to, err := source.ParseDestination(form + ":" + ts.MkAbs(path) + ":" + name)
	ts.Check(err)
	root, layer, err := writeImage(to, args[1])
	ts.Check(errors.Join(err, to.Close()))
	if len(args) == 3 {
		ts.Setenv(args[2], string(root.Digest))
		ts.Setenv(args[2]+"_layer", string(layer.Digest))
	}
}

func writeImage(to source.Destination, content string) (root, layer v1.Descriptor, err error) {
	ctx := context.Background()
	put := func(mediaType, content string) v1.Descriptor {
		desc := manifest.Descriptor(mediaType, []byte(content))
		err = errors.Join(err, to.Put(ctx, desc, strings.NewReader(content)))
		return desc
	}
	layer = put(v1.MediaTypeImageLayer, content)
	m := v1.Manifest{MediaType: v1.MediaTypeImageManifest, Config: put(v1.MediaTypeImageConfig, `{"os":"linux"}`), Layers: []v1.Descriptor{layer}}
	m.SchemaVersion = 2
	raw, jsonErr := json.Marshal(m)
	root = put(m.MediaType, string(raw))
	return root, layer, errors.Join(err, jsonErr, to.Commit(ctx, root))
}

// blobOf is the file of a blob in a layout: DIR and DIGEST.
func blobOf(ts *testscript.TestScript, args []string) string {
	_, hex, _ := strings.Cut(args[1], ":")
	return filepath.Join(ts.MkAbs(args[0]), "blobs", "sha256", hex)
}

// damage DIR DIGEST
//
// Changes the first byte of a blob.
func damage(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg || len(args) != 2, "damage DIR DIGEST")
	content := []byte(ts.ReadFile(blobOf(ts, args)))
	content[0] ^= 0xff
	ts.Check(os.WriteFile(blobOf(ts, args), content, 0o644))
}

// truncate DIR DIGEST
//
// Leaves one byte of a blob.
func truncate(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg || len(args) != 2, "truncate DIR DIGEST")
	ts.Check(os.Truncate(blobOf(ts, args), 1))
}

// names DIR [NAME...]
//
// The layout's index.json lists exactly these names. A directory without one lists none.
func names(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg || len(args) == 0, "names DIR [NAME...]")
	var index v1.Index
	data, err := os.ReadFile(filepath.Join(ts.MkAbs(args[0]), v1.ImageIndexFile))
	if !errors.Is(err, os.ErrNotExist) {
		ts.Check(errors.Join(err, json.Unmarshal(data, &index)))
	}
	var got []string
	for _, entry := range index.Manifests {
		if name := entry.Annotations[v1.AnnotationRefName]; name != "" {
			got = append(got, name)
		}
	}
	slices.Sort(got)
	if want := slices.Sorted(slices.Values(args[1:])); !slices.Equal(got, want) {
		ts.Fatalf("%s lists %q, want %q", args[0], got, want)
	}
}

// fill FILE
//
// Variables in the file have their values.
func fill(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg || len(args) != 1, "fill FILE")
	text := os.Expand(ts.ReadFile(args[0]), ts.Getenv)
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(text), 0o644))
}

// passwordOf is a user's password, or a wrong one. The scripts do not name them, because what they say is printed.
func passwordOf(user string, wrong bool) string {
	if wrong {
		return canary.Mark + "not-of-" + user
	}
	return canary.Mark + "of-" + user
}

// htpasswd FILE USER
//
// Adds a user to a password file.
func htpasswd(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg || len(args) != 2, "htpasswd FILE USER")
	hash, err := bcrypt.GenerateFromPassword([]byte(passwordOf(args[1], false)), bcrypt.MinCost)
	ts.Check(err)
	file, err := os.OpenFile(ts.MkAbs(args[0]), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	ts.Check(err)
	_, err = fmt.Fprintf(file, "%s:%s\n", args[1], hash)
	ts.Check(errors.Join(err, file.Close()))
}

// login HOST USER [wrong]
//
// Stores credentials where docker login does: the user's password, or a wrong one.
func login(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg || len(args) < 2 || len(args) > 3, "login HOST USER [wrong]")
	secret := base64.StdEncoding.EncodeToString([]byte(args[1] + ":" + passwordOf(args[1], len(args) == 3)))
	config, err := json.Marshal(map[string]any{"auths": map[string]any{args[0]: map[string]string{"auth": secret}}})
	ts.Check(err)
	dir := ts.Getenv("DOCKER_CONFIG")
	ts.Check(os.MkdirAll(dir, 0o700))
	ts.Check(os.WriteFile(filepath.Join(dir, "config.json"), config, 0o600))
}

// callers is where a script's environment has those who have called an occupied address.
type callers struct{}

// occupy VARIABLE
//
// Listens at an address, which the variable is then, until the script ends, and answers nobody.
func occupy(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg || len(args) != 1, "occupy VARIABLE")
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	ts.Check(err)
	ts.Defer(func() { listener.Close() })
	ts.Setenv(args[0], listener.Addr().String())
	caller := make(chan bool)
	ts.Value(callers{}).(map[string]chan bool)[args[0]] = caller
	go func() {
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		close(caller)
		io.Copy(io.Discard, conn)
		conn.Close()
	}()
}

// called VARIABLE
//
// Waits until somebody has called an occupied address.
func called(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg || len(args) != 1, "called VARIABLE")
	<-ts.Value(callers{}).(map[string]chan bool)[args[0]]
}

// clean FILE
//
// There is no password in a file.
func clean(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg || len(args) != 1, "clean FILE")
	text := ts.ReadFile(args[0])
	if secret := canary.Find(text); secret != "" || text == "" {
		ts.Fatalf("it has %d bytes, and tells %q", len(text), secret)
	}
}

// get STATUS URL [USER [wrong]]
//
// Asks as any HTTP client does, with a user's password or a wrong one; one that believes in the certificate in
// $CA if that is set. The answer is the standard output.
func get(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg || len(args) < 2 || len(args) > 4, "get STATUS URL [USER [wrong]]")
	req, err := http.NewRequest(http.MethodGet, args[1], nil)
	ts.Check(err)
	if len(args) > 2 {
		req.SetBasicAuth(args[2], passwordOf(args[2], len(args) == 4))
	}
	req.Header.Set("Accept", strings.Join(manifest.MediaTypes(), ", "))
	client := clientWith(ts, ts.Getenv("CA"))
	defer client.CloseIdleConnections()
	resp, err := client.Do(req)
	ts.Check(err)
	defer resp.Body.Close()
	_, err = io.Copy(ts.Stdout(), resp.Body)
	ts.Check(err)
	if got := strconv.Itoa(resp.StatusCode); got != args[0] {
		ts.Fatalf("status %s, want %s", got, args[0])
	}
}

func usage(ts *testscript.TestScript, wrong bool, how string) {
	if wrong {
		ts.Fatalf("usage: %s", how)
	}
}
