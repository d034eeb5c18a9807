package hostile_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/internal/hostile"
	"github.com/berthoci/berth/sdk/remote"
	"github.com/berthoci/berth/sdk/remote/auth"
)

func encode(t *testing.T, v any) []byte {
	t.Helper()
	raw, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// upload pushes a blob in two chunks.
func upload(t *testing.T, repo berth.Repository, content string) v1.Descriptor {
	t.Helper()
	up, err := repo.NewUpload(t.Context(), nil)
	must(t, err)
	defer up.Close()
	for _, chunk := range []string{content[:2], content[2:]} {
		_, err := up.Write([]byte(chunk))
		must(t, err)
	}
	desc, err := up.Commit(t.Context(), digest.FromString(content))
	must(t, err)
	desc.MediaType = v1.MediaTypeImageLayer
	return desc
}

// push pushes an image of one layer, and an index of it that refers to a subject, under a tag.
func push(t *testing.T, repo berth.Repository, tag string) (image, index v1.Descriptor) {
	t.Helper()
	m := v1.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: v1.MediaTypeImageManifest}
	m.Config, m.Layers = upload(t, repo, `{"os":"linux"}`), []v1.Descriptor{upload(t, repo, "layer "+tag)}
	image, err := repo.PushManifest(t.Context(), encode(t, m), nil)
	must(t, err)
	all := v1.Index{Versioned: m.Versioned, MediaType: v1.MediaTypeImageIndex, Manifests: []v1.Descriptor{image}, Subject: &image}
	index, err = repo.PushManifest(t.Context(), encode(t, all), &berth.PushOptions{Tags: []string{tag}})
	must(t, err)
	return image, index
}

func repository(t *testing.T, base string, opts *remote.Options) berth.Repository {
	t.Helper()
	registry, err := remote.New(base, opts)
	must(t, err)
	repo, err := registry.Repository("a/b")
	must(t, err)
	return repo
}

// What goes in comes out, for a polite registry and for one that does all at once that a client need
// not see.
func TestAWholeImageGoesInAndOut(t *testing.T) {
	for name, opts := range map[string]*hostile.Options{
		"polite": nil,
		"odd": {
			Tokens:   hostile.NewTokenServer(&hostile.TokenOptions{Users: map[string]string{"ada": "secret"}, OmitExpiry: true}),
			Absolute: true, UploadQuery: "sig=a%2Fb", PageSize: 1, HeadManifest: 405, NoReferrers: true,
			Header: http.Header{"Ratelimit-Limit": {"100;w=21600"}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			registry := hostile.NewRegistry(opts)
			base := hostile.Serve(t, registry)
			ada := auth.Static(strings.TrimPrefix(base, "http://"), auth.Credential{Username: "ada", Password: "secret"})
			repo := repository(t, base, &remote.Options{Credentials: ada})
			image, index := push(t, repo, "v1")
			push(t, repo, "v2")

			m, err := repo.FetchManifest(t.Context(), "v1", nil)
			must(t, err)
			if m.Descriptor.Digest != index.Digest || registry.Manifest("a/b", "v1") == nil {
				t.Errorf("v1 is %s, want %s", m.Descriptor.Digest, index.Digest)
			}
			var tags []string
			for tag, err := range repo.Tags(t.Context(), "") {
				must(t, err)
				if !strings.HasPrefix(tag, "sha256-") { // a list of referrers, where the registry keeps none
					tags = append(tags, tag)
				}
			}
			if fmt.Sprint(tags) != "[v1 v2]" || registry.Manifest("a/b", "v2") == nil {
				t.Errorf("tags are %q", tags)
			}
			n := 0
			for _, err := range repo.Referrers(t.Context(), image.Digest, nil) {
				must(t, err)
				n++
			}
			if n != 1 {
				t.Errorf("%d referrers, want 1", n)
			}
			blob, err := repo.OpenBlob(t.Context(), digest.FromString("layer v1"))
			must(t, err)
			defer blob.Close()
			_, err = blob.Seek(6, io.SeekStart)
			must(t, err)
			if rest, err := io.ReadAll(blob); string(rest) != "v1" {
				t.Errorf("read %q, %v", rest, err)
			}
			must(t, repo.DeleteManifest(t.Context(), index.Digest))
			if _, err := repo.Resolve(t.Context(), "v1"); !errors.Is(err, berth.ErrManifestUnknown) {
				t.Errorf("after the deletion: %v", err)
			}
		})
	}
}

// ask sends a request and returns the status and headers of the answer, or an error.
func ask(t *testing.T, client *http.Client, method, url, body string, header ...string) (int, http.Header, string, error) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	must(t, err)
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := client.Do(req)
	if err != nil {
		return 0, nil, "", err
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	return resp.StatusCode, resp.Header, string(raw), err
}

func TestChunks(t *testing.T) {
	type step struct {
		chunk, contentRange string
		status              int
	}
	for name, tt := range map[string]struct {
		opts  hostile.Options
		steps []step
		holds string
	}{
		"polite":       {hostile.Options{}, []step{{"ab", "0-1", 202}, {"cd", "2-3", 202}}, "abcd"},
		"out of order": {hostile.Options{}, []step{{"ab", "1-2", 416}, {"cd", "0-1", 202}}, "cd"},
		"one chunk":    {hostile.Options{OneChunk: true}, []step{{"ab", "", 201}, {"cd", "", 201}}, "ab"},
		"by half":      {hostile.Options{HalfChunks: 1}, []step{{"abcd", "0-3", 416}, {"cd", "2-3", 202}}, "abcd"},
		"too short":    {hostile.Options{MinChunk: 3}, []step{{"abc", "0-2", 202}, {"de", "3-4", 202}, {"f", "5-5", 416}}, "abcde"},
	} {
		t.Run(name, func(t *testing.T) {
			registry := hostile.NewRegistry(&tt.opts)
			base := hostile.Serve(t, registry)
			_, h, _, err := ask(t, http.DefaultClient, "POST", base+"/v2/a/blobs/uploads/", "")
			must(t, err)
			if want := map[bool]string{true: "3"}[tt.opts.MinChunk > 0]; h.Get("OCI-Chunk-Min-Length") != want {
				t.Errorf("the least is %q", h.Get("OCI-Chunk-Min-Length"))
			}
			at := base + h.Get("Location")
			for _, s := range tt.steps {
				status, h, _, err := ask(t, http.DefaultClient, "PATCH", at, s.chunk, "Content-Range", s.contentRange)
				if err != nil || status != s.status || h.Get("Range") == "" {
					t.Errorf("%q: status %d, range %q, %v", s.chunk, status, h.Get("Range"), err)
				}
			}
			d := digest.FromString(tt.holds)
			if status, _, _, err := ask(t, http.DefaultClient, "PUT", at+"?digest="+string(d), ""); status != 201 {
				t.Errorf("the end: status %d, %v", status, err)
			}
			if got := registry.Blob("a", d); string(got) != tt.holds {
				t.Errorf("stored %q", got)
			}
		})
	}
}

func TestConditionsAndChildren(t *testing.T) {
	raw, other := `{"schemaVersion":2,"manifests":[]}`, `{"schemaVersion":2,"manifests":[],"annotations":{"a":"b"}}`
	orphan := fmt.Sprintf(`{"schemaVersion":2,"manifests":[{"digest":%q}]}`, digest.FromString("gone"))
	d := digest.FromString(raw)
	for name, tt := range map[string]struct {
		opts   hostile.Options
		body   string
		header []string
		status int
	}{
		"matches":             {hostile.Options{}, other, []string{"If-Match", `"` + string(d) + `"`}, 201},
		"does not match":      {hostile.Options{}, other, []string{"If-Match", `"sha256:0"`}, 412},
		"is there":            {hostile.Options{}, other, []string{"If-None-Match", "*"}, 412},
		"ignored":             {hostile.Options{IgnoreConditions: true}, other, []string{"If-Match", `"sha256:0"`}, 201},
		"a child is missing":  {hostile.Options{}, orphan, nil, 400},
		"which may be so":     {hostile.Options{Sparse: true}, orphan, nil, 201},
		"that is no manifest": {hostile.Options{}, "x", nil, 400},
	} {
		t.Run(name, func(t *testing.T) {
			registry := hostile.NewRegistry(&tt.opts)
			registry.PutManifest("a", "v1", v1.MediaTypeImageIndex, []byte(raw))
			base := hostile.Serve(t, registry)
			status, _, body, err := ask(t, http.DefaultClient, "PUT", base+"/v2/a/manifests/v1", tt.body, tt.header...)
			if err != nil || status != tt.status {
				t.Errorf("status %d, %s, %v", status, body, err)
			}
			if changed := string(registry.Manifest("a", "v1")) == tt.body; changed != (tt.status == 201) {
				t.Errorf("changed: %v", changed)
			}
		})
	}
}

func TestSomebodyElseComesBefore(t *testing.T) {
	registry := hostile.NewRegistry(nil)
	registry.Change(func(o *hostile.Options) {
		o.Before = func(r *http.Request) {
			if r.Method == http.MethodPut {
				registry.PutManifest("a", "v1", v1.MediaTypeImageIndex, []byte(`{}`))
			}
		}
	})
	base := hostile.Serve(t, registry)
	status, _, _, err := ask(t, http.DefaultClient, "PUT", base+"/v2/a/manifests/v1", `{"schemaVersion":2}`, "If-None-Match", "*")
	if err != nil || status != http.StatusPreconditionFailed {
		t.Errorf("status %d, %v", status, err)
	}
}

func TestFaultsBefallWhatTheySelect(t *testing.T) {
	registry := hostile.NewRegistry(&hostile.Options{PlainText: true, Faults: []*hostile.Fault{
		{On: hostile.On("GET", "/busy"), Times: 2, Status: 429, RetryAfter: "7", Body: "slow down"},
		{On: hostile.On("GET", "/blobs/"), Times: 1, Cut: true, After: 3},
		{On: hostile.On("PATCH", ""), Times: 1, Cut: true, After: 4},
		{On: hostile.On("GET", "/cut"), Cut: true},
	}})
	d := registry.PutBlob("a", []byte("0123456789"))
	base := hostile.Serve(t, registry)
	client := http.DefaultClient
	for i, want := range []int{429, 429, 404} {
		status, h, body, err := ask(t, client, "GET", base+"/busy", "")
		if err != nil || status != want || want == 429 && (h.Get("Retry-After") != "7" || body != "slow down") {
			t.Errorf("%d: status %d, %q, %v", i, status, body, err)
		}
	}
	if _, _, body, err := ask(t, client, "GET", base+"/v2/a/blobs/"+string(d), ""); body != "012" || err == nil {
		t.Errorf("read %q, %v", body, err)
	}
	if _, _, body, err := ask(t, client, "GET", base+"/v2/a/blobs/"+string(d), ""); body != "0123456789" || err != nil {
		t.Errorf("the second time %q, %v", body, err)
	}
	if _, _, _, err := ask(t, client, "GET", base+"/cut", ""); err == nil {
		t.Error("no cut")
	}
	_, h, _, err := ask(t, client, "POST", base+"/v2/a/blobs/uploads/", "")
	must(t, err)
	if _, _, _, err := ask(t, client, "PATCH", base+h.Get("Location"), "01234567"); err == nil {
		t.Error("the upload went through")
	}
	if _, h, _, _ := ask(t, client, "GET", base+h.Get("Location"), ""); h.Get("Range") != "0-3" {
		t.Errorf("kept %q of what was cut", h.Get("Range"))
	}
	if _, _, body, _ := ask(t, client, "GET", base+"/v2/a/manifests/v1", ""); body != "manifest unknown\n" {
		t.Errorf("said %q", body)
	}
	if n := registry.Count("GET", "/busy"); n != 3 {
		t.Errorf("counted %d", n)
	}
}

// In a network of pipes everything has a name, time is the test's, and nothing is left running.
func TestANetworkStandsStillUnderSynctest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tokens := hostile.NewTokenServer(&hostile.TokenOptions{Lifetime: time.Minute})
		registry := hostile.NewRegistry(&hostile.Options{Tokens: tokens, Realm: "https://auth.example/token", Faults: []*hostile.Fault{
			{On: hostile.On("GET", "/blobs/"), Stall: true, After: 2},
			{On: hostile.On("PUT", ""), Stall: true, After: 2},
		}})
		d := registry.PutBlob("a", []byte("content"))
		network := hostile.NewNetwork()
		defer network.Close()
		defer registry.Close()
		network.Handle("https://registry.example", registry)
		network.Handle("https://auth.example", tokens)
		client := &http.Client{Transport: &auth.Transport{Base: network}}
		get := func() int {
			status, _, _, err := ask(t, client, "GET", "https://registry.example/v2/a/tags/list", "")
			must(t, err)
			return status
		}
		registry.PutManifest("a", "v1", v1.MediaTypeImageIndex, []byte("{}"))
		if status := get(); status != 200 {
			t.Errorf("status %d", status)
		}
		time.Sleep(time.Hour)
		if status := get(); status != 200 || len(tokens.Exchanges()) != 2 {
			t.Errorf("an hour later: status %d after %d exchanges", status, len(tokens.Exchanges()))
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		req, err := http.NewRequestWithContext(ctx, "GET", "https://registry.example/v2/a/blobs/"+string(d), nil)
		must(t, err)
		resp, err := client.Do(req)
		must(t, err)
		defer resp.Body.Close()
		if got, err := io.ReadAll(resp.Body); string(got) != "co" || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("read %q, %v", got, err)
		}
		req, err = http.NewRequestWithContext(ctx, "PUT", "https://registry.example/v2/a/manifests/v1", strings.NewReader("{ }"))
		must(t, err)
		if _, err := client.Do(req); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("an upload that nobody reads: %v", err)
		}
		if _, _, _, err := ask(t, &http.Client{Transport: network}, "GET", "https://nowhere.example/", ""); err == nil {
			t.Error("reached a host that is not there")
		}
	})
}

func TestStorageTakesAndGives(t *testing.T) {
	registry := hostile.NewRegistry(nil)
	storage := hostile.NewStorage(registry)
	cdn := httptest.NewServer(storage)
	defer cdn.Close()
	registry.Change(func(o *hostile.Options) { o.BlobsAt, o.UploadsAt = cdn.URL, cdn.URL })
	content := bytes.Repeat([]byte("x"), 1000)
	desc := v1.Descriptor{Digest: digest.FromBytes(content), Size: int64(len(content))}
	rr, err := remote.New(hostile.Serve(t, registry), nil)
	must(t, err)
	repo, err := rr.Open("team/app")
	must(t, err)
	must(t, repo.PushBlob(t.Context(), desc, func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(content)), nil }, nil))
	blob, err := repo.OpenBlob(t.Context(), desc.Digest)
	must(t, err)
	defer blob.Close()
	if got, err := io.ReadAll(blob); err != nil || !bytes.Equal(got, content) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	var asked []string
	for _, r := range storage.Requests() {
		asked = append(asked, r.Method)
	}
	if !slices.Equal(asked, []string{"PUT", "GET"}) {
		t.Errorf("the storage was asked %q", asked)
	}
}
