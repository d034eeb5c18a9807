package auth

import (
	"context"
	"testing"
)

func TestScopesAreWrittenAsTokenServersTakeThem(t *testing.T) {
	tests := []struct {
		scope Scope
		want  string
	}{
		{Repository("app/web", "pull", "push"), "repository:app/web:pull,push"},
		{Repository("app/web", "push", "pull", "push", ""), "repository:app/web:pull,push"},
		{Catalog(), "registry:catalog:*"},
		{Scope{Type: "opaque"}, "opaque"},
		{Scope{Type: "repository", Name: "a", Actions: []string{"push", "pull"}}, "repository:a:push,pull"},
	}
	for _, tt := range tests {
		if got := tt.scope.String(); got != tt.want {
			t.Errorf("%#v is %q, want %q", tt.scope, got, tt.want)
		}
	}
}

func TestChallengedScopesAreParsedMergedAndPutPushFirst(t *testing.T) {
	tests := []struct{ in, want string }{
		{"", ""},
		{"repository:a:pull", "repository:a:pull"},
		{"  repository:a:push,pull  registry:catalog:* ", "repository:a:pull,push registry:catalog:*"},
		{"repository:a:pull repository:a:push", "repository:a:pull,push"},
		{"repository:a:pull repository:b:push,pull", "repository:b:pull,push repository:a:pull"},
		{"repository:localhost:5000/a:pull", "repository:localhost:5000/a:pull"},
		{"repository(plugin):a:pull", "repository(plugin):a:pull"},
		{"aws", "aws"},
		{"repository:a", "repository:a"},
		{"repository:a:", ""},
	}
	for _, tt := range tests {
		if got := scopeText(parseScopes(tt.in)); got != tt.want {
			t.Errorf("parseScopes(%q) is %q, want %q", tt.in, got, tt.want)
		}
	}
}

func TestATokenCoversItsSubsets(t *testing.T) {
	tests := []struct {
		have, need string
		want       bool
	}{
		{"", "", true},
		{"repository:a:pull", "", true},
		{"", "repository:a:pull", false},
		{"repository:a:pull,push", "repository:a:pull", true},
		{"repository:a:pull", "repository:a:pull,push", false},
		{"repository:a:pull,push", "repository:b:pull", false},
		{"repository:a:pull,push repository:b:pull", "repository:b:pull", true},
		{"repository:a:*", "repository:a:delete,pull", true},
		{"registry:catalog:*", "registry:catalog:*", true},
		{"repository:a:pull", "repository:a:*", false},
		{"registry:a:pull", "repository:a:pull", false},
		{"aws", "aws", true},
	}
	for _, tt := range tests {
		if got := covers(parseScopes(tt.have), parseScopes(tt.need)); got != tt.want {
			t.Errorf("covers(%q, %q) = %v", tt.have, tt.need, got)
		}
	}
}

func TestWideningStaysWithTheResourcesOfTheRequest(t *testing.T) {
	tests := []struct{ own, more, want string }{
		{"repository:a:pull", "", "repository:a:pull"},
		{"repository:a:pull", "repository:a:delete", "repository:a:delete,pull"},
		{"repository:a:pull", "repository:b:push registry:catalog:*", "repository:a:pull"},
		{"repository:a:pull,push repository:b:pull", "repository:b:push", "repository:a:pull,push repository:b:pull,push"},
	}
	for _, tt := range tests {
		if got := scopeText(widen(parseScopes(tt.own), parseScopes(tt.more))); got != tt.want {
			t.Errorf("widen(%q, %q) = %q, want %q", tt.own, tt.more, got, tt.want)
		}
	}
}

func TestWithScopesReplacesTheScopesOfItsParent(t *testing.T) {
	ctx := WithScopes(context.Background(), Repository("a", "pull"))
	ctx = WithScopes(ctx, Repository("b", "pull"), Repository("c", "push"))
	if got, want := scopeText(scopesOf(ctx)), "repository:c:push repository:b:pull"; got != want {
		t.Errorf("scopes are %q, want %q", got, want)
	}
}

func TestMergeLeavesItsArgumentsAlone(t *testing.T) {
	first := Scope{Type: "repository", Name: "a", Actions: []string{"push", "pull"}}
	merge([]Scope{first, Repository("a", "delete")})
	if got, want := first.String(), "repository:a:push,pull"; got != want {
		t.Errorf("merge made %q of %q", got, want)
	}
}

func TestScopesAreToldToWhomTheyConcern(t *testing.T) {
	if got := Scopes(context.Background()); len(got) != 0 {
		t.Errorf("a context without scopes has %v", got)
	}
	ctx := WithScopes(context.Background(), Repository("app/web", "pull"), Repository("app/web", "push"))
	got := Scopes(ctx)
	if text := scopeText(got); text != "repository:app/web:pull,push" {
		t.Errorf("the scopes are %q", text)
	}
	got[0].Actions[0] = "delete"
	if text := scopeText(Scopes(ctx)); text != "repository:app/web:pull,push" {
		t.Errorf("who was told the scopes has changed them to %q", text)
	}
}
