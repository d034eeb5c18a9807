package auth

import (
	"errors"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/berthoci/berth"
	"github.com/berthoci/berth/internal/ocirequest"
)

func TestLoopbackIsAnchored(t *testing.T) {
	tests := []struct {
		host               string
		loopback, internal bool
	}{
		{"localhost", true, true},
		{"LOCALHOST", true, true},
		{"localhost.", true, true},
		{"registry.localhost", true, true},
		{"127.0.0.1", true, true},
		{"127.255.0.9", true, true},
		{"::1", true, true},
		{"::ffff:127.0.0.1", true, true},
		{"127.0.0.1.example.com", false, false},
		{"localhost.example.com", false, false},
		{"notlocalhost", false, false},
		{"10.1.2.3", false, true},
		{"172.16.0.1", false, true},
		{"192.168.1.1", false, true},
		{"169.254.169.254", false, true},
		{"100.100.100.200", false, true},
		{"::ffff:10.0.0.1", false, true},
		{"::ffff:100.64.0.1", false, true},
		{"fe80::1%eth0", false, true},
		{"fd00:ec2::254", false, true},
		{"0.0.0.0", false, true},
		{"::", false, true},
		{"224.0.0.1", false, true},
		{"2130706433", false, true},
		{"127.1", false, true},
		{"0x7f.1", false, true},
		{"127.0.0.0x1", false, true},
		{"8.8.8.8", false, false},
		{"2001:4860:4860::8888", false, false},
		{"auth.example", false, false},
		{"host.local", false, false},
		{"0xyz.example.0xg", false, false},
	}
	for _, tt := range tests {
		if got := ocirequest.IsLoopback(tt.host); got != tt.loopback {
			t.Errorf("isLoopback(%q) = %v", tt.host, got)
		}
		if got := isInternal(tt.host); got != tt.internal {
			t.Errorf("isInternal(%q) = %v", tt.host, got)
		}
	}
}

func TestRealmsAreResolvedAndJudged(t *testing.T) {
	const public, private, loopback = "https://registry.example/v2/a/tags", "https://10.0.0.5/v2/", "http://127.0.0.1:5000/v2/"
	tests := []struct {
		registry, realm string
		want            string // the realm; "" if it is refused
	}{
		{public, "https://auth.example/token", "https://auth.example/token"},
		{public, "/token?a=b", "https://registry.example/token?a=b"},
		{public, "token", "https://registry.example/v2/a/token"},
		{public, "//auth.example/token", "https://auth.example/token"},
		{public, "https://user:secret@auth.example/t#f", "https://auth.example/t"},
		{public, "https://8.8.8.8/token", "https://8.8.8.8/token"},
		{public, "http://auth.example/token", ""},
		{public, "http://registry.example/token", ""},
		{public, "http://127.0.0.1.evil.com/token", ""},
		{public, "https://10.0.0.1/token", ""},
		{public, "https://169.254.169.254/latest", ""},
		{public, "https://[fd00:ec2::254]/latest", ""},
		{public, "https://[::ffff:169.254.169.254]/latest", ""},
		{public, "https://2852039166/latest", ""},
		{public, "http://localhost:2375/token", ""},
		{public, "https://127.0.0.1/token", ""},
		{public, "ftp://auth.example/token", ""},
		{public, "file:///etc/passwd", ""},
		{public, "https:///token", ""},
		{public, "https://au\x7fth/", ""},
		{"http://registry.example/v2/", "/token", "http://registry.example/token"},
		{"http://registry.example/v2/", "http://registry.example:80/token", "http://registry.example:80/token"},
		{"http://registry.example/v2/", "http://registry.example:81/token", ""},
		{"http://registry.example/v2/", "http://auth.example/token", ""},
		{private, "https://10.0.0.1/token", "https://10.0.0.1/token"},
		{private, "http://10.0.0.1/token", ""},
		{private, "http://localhost:9/token", "http://localhost:9/token"},
		{loopback, "http://127.0.0.1:5001/token", "http://127.0.0.1:5001/token"},
		{loopback, "http://auth.localhost/token", "http://auth.localhost/token"},
		{loopback, "https://auth.example/token", "https://auth.example/token"},
		{loopback, "http://auth.example/token", ""},
		{"https://127.0.0.1.evil.com/v2/", "https://127.0.0.1/token", ""},
	}
	for _, tt := range tests {
		target, err := url.Parse(tt.registry)
		if err != nil {
			t.Fatal(err)
		}
		d, err := new(Transport).demand(target, challenge{scheme: schemeBearer, params: map[string]string{"realm": tt.realm}})
		got := ""
		if err == nil {
			got = d.realmText()
		}
		if got != tt.want {
			t.Errorf("realm %q of %s is %q, %v; want %q", tt.realm, tt.registry, got, err, tt.want)
		}
		if err != nil && (!errors.Is(err, berth.ErrUnauthorized) || !strings.Contains(err.Error(), target.Host)) {
			t.Errorf("realm %q of %s: error %q", tt.realm, tt.registry, err)
		}
	}
}

func TestARefusedRealmIsNeverAsked(t *testing.T) {
	internal := &fakeRealm{}
	registry := &fakeRegistry{challenges: []string{`Bearer realm="http://169.254.169.254/token"`}, accept: acceptBearer}
	rt := &Transport{
		Base:        network{registryURL: registry, "http://169.254.169.254": internal},
		Credentials: Static("registry.example", Credential{Username: "alice", Password: "hunter2"}),
	}
	_, err := rt.RoundTrip(request(t, http.MethodGet, registryURL+"/v2/", nil))
	if !errors.Is(err, berth.ErrUnauthorized) {
		t.Errorf("error is %v", err)
	}
	if n := len(internal.requests()); n != 0 {
		t.Errorf("the private address got %d requests", n)
	}
}

func TestTheUserCanAllowARealm(t *testing.T) {
	internal := &fakeRealm{}
	registry := &fakeRegistry{challenges: []string{`Bearer realm="http://10.0.0.1/token"`}, accept: acceptBearer}
	rt := &Transport{Base: network{registryURL: registry, "http://10.0.0.1": internal}}
	rt.AllowRealm = func(host string, realm *url.URL) bool {
		return host == "registry.example" && realm.Host == "10.0.0.1"
	}
	if status, _ := get(t, rt, registryURL+"/v2/"); status != http.StatusOK {
		t.Errorf("status %d", status)
	}
}

func TestServiceDefaultsToTheRegistry(t *testing.T) {
	realm := &fakeRealm{}
	rt := pair(&fakeRegistry{challenges: []string{`Bearer realm="https://auth.example/token"`}}, realm)
	get(t, rt, registryURL+"/v2/")
	wantEqual(t, "service", realm.requests()[0].service, "registry.example")
}

func TestOriginsAreComparedWithTheirPorts(t *testing.T) {
	tests := []struct {
		a, b string
		want bool
	}{
		{"https://h", "https://H:443/x", true},
		{"http://h:80", "HTTP://h", true},
		{"https://h", "http://h", false},
		{"https://h", "https://h:444", false},
		{"https://h", "https://h.", false},
		{"https://[::1]:5000", "https://[::1]:5000/v2", true},
	}
	for _, tt := range tests {
		a, _ := url.Parse(tt.a)
		b, _ := url.Parse(tt.b)
		if got := sameOrigin(a, b); got != tt.want {
			t.Errorf("sameOrigin(%s, %s) = %v", tt.a, tt.b, got)
		}
	}
}
