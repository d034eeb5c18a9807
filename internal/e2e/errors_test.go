//go:build linux

package e2e

import (
	"archive/tar"
	"bytes"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

const (
	// badTag is what a push that has to fail would set.
	badTag = "bad/image:v1"
	// payload stands in the damaged files, and must not be repeated.
	payload = "PAYLOAD-OF-THE-INPUT"
	// longestLine bounds an error line, in bytes: it is for people.
	longestLine = 600
)

// trial is one command line that has to fail, and what was prepared for it.
type trial struct {
	*shell
	layout, made string
	image        image
	holder       *process // owns the layout while the command runs
	args, named  []string // named is what the error line has to contain
}

// say sets the command line, and what its error has to name.
func (r *trial) say(args []string, named ...string) { r.args, r.named = args, named }

func (r *trial) push(source string, named ...string) {
	r.say([]string{"push", source, badTag}, named...)
}

type badInput struct {
	name    string
	code    int
	prepare func(*trial)
}

func TestErrorLines(t *testing.T) {
	for _, c := range slices.Concat(badCommands, badSources, badSurroundings) {
		t.Run(c.name, func(t *testing.T) {
			s := newShell(t)
			r := &trial{shell: s, layout: s.path("layout"), made: s.path("made")}
			r.image = s.smallImage(r.made, "v1", 3)
			c.prepare(r)
			out := r.run("berth", append([]string{"--layout", r.layout}, r.args...)...)
			t.Logf("exit code %d\n%s", out.code, out.stderr)
			r.examine(out, c.code)
			r.unchanged()
		})
	}
}

var progressLine = regexp.MustCompile(`^(sent|existing|mounted) +sha256:[0-9a-f]+  [0-9.]+ [KMG]?i?B$`)

// errorLines are the lines of a standard error that tell an error.
func errorLines(stderr string) []string {
	var lines []string
	for line := range strings.Lines(stderr) {
		if line = strings.TrimRight(line, "\r\n"); strings.HasPrefix(line, "berth: ") {
			lines = append(lines, line)
		}
	}
	return lines
}

// examine looks at what a command that has failed printed.
func (r *trial) examine(out outcome, code int) {
	r.Helper()
	if out.code != code {
		r.Errorf("exit code %d, want %d", out.code, code)
	}
	lines := errorLines(out.stderr)
	if code == 2 && len(lines) > 0 && lines[len(lines)-1] == "berth: see berth help" {
		lines = lines[:len(lines)-1]
	} else if code == 2 {
		r.Error("the last line is not: berth: see berth help")
	}
	if len(lines) != 1 {
		r.Fatalf("%d lines tell the error, want 1", len(lines))
	}
	for _, name := range r.named {
		if !strings.Contains(lines[0], name) {
			r.Errorf("the line does not name %s", name)
		}
	}
	if strings.Contains(lines[0], "http://") && r.args[0] != "sync" {
		r.Error("the line tells an address that only this command has spoken to")
	}
	r.examineText(out)
}

// examineText makes sure that nothing but the error and the progress before it is told.
func (r *trial) examineText(out outcome) {
	r.Helper()
	for line := range strings.Lines(out.stderr) {
		line = strings.TrimSuffix(line, "\n")
		if !strings.HasPrefix(line, "berth: ") && !progressLine.MatchString(line) {
			r.Errorf("a line is neither error nor progress: %s", line)
		}
		if len(line) > longestLine {
			r.Errorf("a line has %d bytes", len(line))
		}
		if strings.ContainsFunc(line, func(c rune) bool { return c == unicode.ReplacementChar || !unicode.IsPrint(c) }) {
			r.Errorf("a line is not plain text: %q", line)
		}
	}
	for _, unwanted := range []string{payload, "panic:", "goroutine "} {
		if strings.Contains(out.stdout+out.stderr, unwanted) {
			r.Errorf("the output contains %q", unwanted)
		}
	}
}

// unchanged makes sure that the failure has left no tag.
func (r *trial) unchanged() {
	r.Helper()
	if r.holder != nil {
		r.holder.stop()
	}
	if names := r.namesOf(r.layout); slices.Contains(names, badTag) {
		r.Errorf("the directory has the tags %q", names)
	}
	if out := r.run("berth", "--layout", r.layout, "resolve", badTag); out.code != 1 {
		r.Errorf("%s is there: %s", badTag, out.stdout)
	}
	left, err := os.ReadDir(r.temp)
	r.check(err)
	if len(left) > 0 {
		r.Errorf("%v are left in TMPDIR", left)
	}
}

// A socket's path must be short, and TMPDIR need not be.
func TestALongTemporaryDirectory(t *testing.T) {
	s := newShell(t)
	s.smallImage(s.path("made"), "v1", 1)
	temp := s.path(strings.Repeat("long", 20), strings.Repeat("path", 20))
	s.check(os.MkdirAll(temp, 0o755))
	begin := time.Now()
	out := s.with("TMPDIR="+temp).run("berth", "--layout", s.path("layout"), "push", "oci:"+s.path("made"), "app/hello:v1")
	if took := time.Since(begin); took > 5*time.Second {
		t.Errorf("the answer took %v", took)
	}
	lines := errorLines(out.stderr)
	if out.code != 0 && (len(lines) != 1 || strings.ContainsAny(lines[0], "{}") || !strings.Contains(lines[0], "TMPDIR")) {
		t.Errorf("it did not work, and no line says that TMPDIR is the reason:\n%s", out.stderr)
	}
}

var badCommands = []badInput{
	{"an unknown flag", 2, func(r *trial) {
		r.say([]string{"push", "--no-such-flag", "oci:" + r.made, badTag}, "--no-such-flag")
	}},
	{"an unknown command", 2, func(r *trial) { r.say([]string{"shove", "oci:" + r.made, badTag}, "shove") }},
	{"too few arguments", 2, func(r *trial) { r.say([]string{"push", badTag}) }},
	{"a source of unknown form", 2, func(r *trial) { r.push("tarball:"+r.made, "tarball:"+r.made) }},
	{"a sync to nowhere", 2, func(r *trial) { r.say([]string{"sync", badTag}, "--to") }},
	{"a reference that does not parse", 2, func(r *trial) {
		r.say([]string{"push", "oci:" + r.made, "Bad/IMAGE:v1"}, "Bad/IMAGE:v1")
	}},
	{"a second tag that does not parse", 2, func(r *trial) {
		r.say([]string{"push", "oci:" + r.made, badTag + ",not a tag"}, "not a tag")
	}},
	{"a tag that is not there", 1, func(r *trial) { r.say([]string{"resolve", badTag}, badTag) }},
	{"a pattern that matches nothing", 1, func(r *trial) {
		r.say([]string{"sync", "--to", "127.0.0.1:1", "bad/*"}, "bad/*")
	}},
}

var badSources = []badInput{
	{"a directory that is no layout", 1, func(r *trial) {
		r.write(r.path("other", "readme"), payload)
		r.push("oci:"+r.path("other"), r.path("other"))
	}},
	{"a directory that is not there", 1, func(r *trial) { r.push("oci:"+r.path("absent"), r.path("absent")) }},
	{"an index that does not parse", 1, func(r *trial) {
		r.write(filepath.Join(r.made, v1.ImageIndexFile), `{"manifests":["`+strings.Repeat(payload, 100))
		r.push("oci:"+r.made, r.made, v1.ImageIndexFile)
	}},
	{"a name that the layout does not have", 1, func(r *trial) { r.push("oci:"+r.made+":v2", r.made, "v2") }},
	{"a truncated layer", 1, func(r *trial) {
		layer := r.image.blobs[2]
		r.check(os.Truncate(blobFile(r.made, layer.Digest), layer.Size/2))
		r.push("oci:"+r.made, r.made, string(layer.Digest))
	}},
	{"a missing layer", 1, func(r *trial) {
		layer := r.image.blobs[2]
		r.check(os.Remove(blobFile(r.made, layer.Digest)))
		r.push("oci:"+r.made, r.made, string(layer.Digest))
	}},
	{"a layer of other bytes", 1, func(r *trial) {
		layer := r.image.blobs[2]
		r.damage(blobFile(r.made, layer.Digest))
		r.push("oci:"+r.made, r.made, string(layer.Digest))
	}},
	{"a manifest of other bytes", 1, func(r *trial) {
		r.damage(blobFile(r.made, r.image.root))
		r.push("oci:"+r.made, r.made, string(r.image.root))
	}},
	{"an archive that ends within a file", 1, func(r *trial) { r.pushCutArchive(func(whole int) int { return whole / 2 }) }},
	{"an archive that ends within a header", 1, func(r *trial) { r.pushCutArchive(func(int) int { return 100 }) }},
	{"an archive without its end", 1, func(r *trial) { r.pushCutArchive(func(whole int) int { return whole - 3<<10 }) }},
	{"an empty archive", 1, func(r *trial) { r.pushCutArchive(func(int) int { return 0 }) }},
	{"an archive of something else", 1, func(r *trial) {
		r.write(r.path("image.tar"), strings.Repeat(payload, 1000))
		r.push("oci-archive:"+r.path("image.tar"), r.path("image.tar"))
	}},
}

// pushCutArchive pushes an archive of the image of which only the beginning is there.
func (r *trial) pushCutArchive(cut func(whole int) int) {
	r.Helper()
	var archive bytes.Buffer
	w := tar.NewWriter(&archive)
	r.check(w.AddFS(os.DirFS(r.made)))
	r.check(w.Close())
	name := r.path("image.tar")
	r.write(name, archive.String()[:cut(archive.Len())])
	r.push("oci-archive:"+name, name)
}

// damage changes a byte in the middle of a file.
func (s *shell) damage(file string) {
	s.Helper()
	content, err := os.ReadFile(file)
	s.check(err)
	content[len(content)/2] ^= 0xff
	s.check(os.WriteFile(file, content, 0o600))
}

// largestBlob is the file of a layout's largest blob.
func (s *shell) largestBlob(dir string) string {
	s.Helper()
	var largest string
	var size int64
	for _, d := range s.blobsOf(dir) {
		info, err := os.Stat(blobFile(dir, d))
		s.check(err)
		if info.Size() > size {
			largest, size = blobFile(dir, d), info.Size()
		}
	}
	return largest
}

var badSurroundings = []badInput{
	{"an address in use", 1, func(r *trial) {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		r.check(err)
		r.Cleanup(func() { listener.Close() })
		r.say([]string{"serve", "--addr", listener.Addr().String()}, listener.Addr().String())
	}},
	{"an address that others can reach", 2, func(r *trial) {
		r.say([]string{"serve", "--addr", "0.0.0.0:0"}, "0.0.0.0:0")
	}},
	{"a layout that is served, and is to be made anew", 1, func(r *trial) {
		r.holder, _ = r.serve(r.layout)
		r.say([]string{"fsck", "--rebuild"}, r.layout, fmt.Sprint(r.holder.cmd.Process.Pid))
	}},
	{"a layout directory that holds something else", 1, func(r *trial) {
		r.layout = r.path("home")
		r.write(filepath.Join(r.layout, "readme"), payload)
		r.push("oci:"+r.made, r.layout)
	}},
	{"a remote that lets nobody in", 1, func(r *trial) { r.syncTo(r.unwilling(`Basic realm="e2e"`)) }},
	{"a remote that lets nobody in and asks for nothing", 1, func(r *trial) { r.syncTo(r.unwilling("")) }},
	{"a remote that does not answer", 1, func(r *trial) {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		r.check(err)
		r.check(listener.Close())
		r.syncTo(listener.Addr().String())
	}},
	{"a lock file that does not parse", 1, func(r *trial) {
		r.write(r.path("berth.lock"), "version: 1\npins: ["+strings.Repeat(payload, 100))
		r.say([]string{"pin", "verify", "--lock", r.path("berth.lock")}, r.path("berth.lock"))
	}},
	{"a lock file that does not parse, to add to", 1, func(r *trial) {
		r.write(r.path("berth.lock"), "version: 1\npins: ["+strings.Repeat(payload, 100))
		r.say([]string{"pin", "add", "--lock", r.path("berth.lock"), badTag}, r.path("berth.lock"))
	}},
	{"a lock file that is not there", 1, func(r *trial) {
		r.say([]string{"pin", "verify", "--lock", r.path("absent.lock")}, r.path("absent.lock"))
	}},
}

// unwilling is a registry that answers 401 to everybody, and its address.
func (r *trial) unwilling(challenge string) string {
	r.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if challenge != "" {
			w.Header().Set("Www-Authenticate", challenge)
		}
		w.WriteHeader(http.StatusUnauthorized)
		fmt.Fprintf(w, "<html>%s</html>", strings.Repeat(payload, 1000))
	}))
	r.Cleanup(server.Close)
	return strings.TrimPrefix(server.URL, "http://")
}

// syncTo syncs a good image to a bad host, as somebody who has logged in there.
func (r *trial) syncTo(host string) {
	r.Helper()
	r.must("berth", "--layout", r.layout, "push", "oci:"+r.made, "good/image:v1")
	r.shell = r.loggedIn(host, password)
	r.say([]string{"sync", "--to", host, "good/image:v1"}, host)
}
