package hostile

import (
	"fmt"
	"net/http"
	"strings"

	"github.com/berthoci/berth/internal/ocirequest"
)

// admit reports whether the request may be answered; else it has been refused.
func (c *call) admit() bool {
	shown := c.r.Header.Get("Authorization")
	if c.MaxAuthorization > 0 && len(shown) > c.MaxAuthorization {
		c.refuse(http.StatusRequestHeaderFieldsTooLarge, "UNKNOWN", "header too large")
		return false
	}
	switch {
	case c.Tokens == nil && c.Users == nil:
		return true
	case c.Public && shown == "" && onlyPull(c.needed()):
		return true
	case c.Tokens != nil:
		return c.admitToken(shown)
	}
	return c.admitUser()
}

func (c *call) admitToken(shown string) bool {
	token, _ := bearerOf(shown)
	reason := c.Tokens.judge(token, c.needed())
	if c.DenyAll {
		reason = "insufficient_scope"
	}
	if reason == "" {
		return true
	}
	c.challenge(reason)
	code, message := "UNAUTHORIZED", "authentication required"
	if reason == "insufficient_scope" {
		code, message = "DENIED", "requested access to the resource is denied"
	}
	c.refuse(http.StatusUnauthorized, code, message)
	return false
}

func (c *call) admitUser() bool {
	user, password, shown := c.r.BasicAuth()
	if want, known := c.Users[user]; shown && known && want == password {
		return true
	}
	status := http.StatusUnauthorized
	if shown && c.BadPassword != 0 {
		status = c.BadPassword
	}
	if status == http.StatusUnauthorized {
		c.challenge("")
	}
	c.refuse(status, "UNAUTHORIZED", "who are you")
	return false
}

// challenge sets the headers that say how to come in.
func (c *call) challenge(reason string) {
	scope := strings.Join(c.needed(), " ")
	for _, text := range c.Challenges {
		c.w.Header().Add("WWW-Authenticate", strings.ReplaceAll(text, "{scope}", scope))
	}
	if c.Challenges != nil {
		return
	}
	if c.Tokens == nil {
		c.w.Header().Set("WWW-Authenticate", `Basic realm="hostile"`)
		return
	}
	realm := c.Realm
	if realm == "" {
		realm = "/token"
	}
	text := fmt.Sprintf(`Bearer realm="%s",service="hostile",scope="%s"`, realm, scope)
	if reason != "" {
		text += fmt.Sprintf(`,error="%s"`, reason)
	}
	c.w.Header().Set("WWW-Authenticate", text)
}

// needed are the scopes that the request needs, each with one action.
func (c *call) needed() []string {
	on := func(repo string, actions ...string) (scopes []string) {
		for _, action := range actions {
			scopes = append(scopes, "repository:"+repo+":"+action)
		}
		return scopes
	}
	repo := c.req.Repository
	switch c.req.Kind {
	case ocirequest.Ping:
		return nil
	case ocirequest.Catalog:
		return []string{"registry:catalog:*"}
	case ocirequest.BlobGet, ocirequest.BlobHead, ocirequest.ManifestGet, ocirequest.ManifestHead, ocirequest.TagList, ocirequest.ReferrerList:
		return on(repo, "pull")
	case ocirequest.BlobDelete, ocirequest.ManifestDelete:
		if c.DeleteAction {
			return on(repo, "delete")
		}
	case ocirequest.UploadMount:
		if c.req.From != "" {
			return append(on(repo, "pull", "push"), on(c.req.From, "pull")...)
		}
	}
	return on(repo, "pull", "push")
}

func onlyPull(scopes []string) bool {
	for _, s := range scopes {
		if !strings.HasSuffix(s, ":pull") {
			return false
		}
	}
	return true
}
