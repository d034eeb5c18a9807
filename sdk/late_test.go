package sdk_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"path/filepath"
	"strings"
	"testing"

	"github.com/berthoci/berth/host"
	"github.com/berthoci/berth/plugin"
	"github.com/berthoci/berth/sdk"
	"github.com/berthoci/berth/sdk/embedded"
)

// between serves a layout from within the test, and shows each request before it is answered.
type between struct {
	host.Launcher
	show func(*http.Request)
}

type betweenPlugin struct {
	host.Plugin
	show func(*http.Request)
}

type betweenLease struct {
	plugin.Lease
	proxy *httptest.Server
}

func (b between) Launch(ctx context.Context, start host.Start) (host.Plugin, error) {
	p, err := b.Launcher.Launch(ctx, start)
	return betweenPlugin{p, b.show}, err
}

// Lease puts a proxy before the address. What it has been sent arrives, whether its client waits for
// the answer or not.
func (b betweenPlugin) Lease(ctx context.Context, opts plugin.LeaseOptions) (plugin.Lease, error) {
	lease, err := b.Plugin.Lease(ctx, opts)
	if err != nil {
		return nil, err
	}
	target := &url.URL{Scheme: "http", Host: lease.Grant().Endpoint.Address}
	proxy := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(target) }}
	return &betweenLease{lease, httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b.show(r)
		proxy.ServeHTTP(w, r.WithContext(context.WithoutCancel(r.Context())))
	}))}, nil
}

func (b *betweenLease) Grant() plugin.Grant {
	grant := b.Lease.Grant()
	grant.Endpoint.Address = b.proxy.Listener.Addr().String()
	return grant
}

func (b *betweenLease) Close() error {
	b.proxy.Close()
	return b.Lease.Close()
}

// Who cancels a push while its tags are being set is told what has become of them.
func TestPushCancelledWhileTheTagsAreSet(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	launcher := between{embedded.InProcess(), func(r *http.Request) {
		if r.Method == http.MethodPut && strings.Contains(r.URL.Path, "/manifests/") {
			cancel()
		}
	}}
	registry, err := sdk.Open(t.Context(), &sdk.Options{Layout: filepath.Join(t.TempDir(), "layout"), Launcher: launcher})
	must(t, err)
	defer registry.Close()
	image := build(t, "one")
	pushed, err := registry.Push(ctx, image.source(), "app:v1,v2", nil)
	if err != nil || pushed.Descriptor.Digest != image.root.Digest {
		t.Errorf("the tags were set, and the push says %+v, %v", pushed, err)
	}
	if ctx.Err() == nil {
		t.Error("the push was not cancelled")
	}
	wantEqual(t, "tags", tags(t, registry, "app"), []string{"v1", "v2"})
}
