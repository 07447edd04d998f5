"""Sentences in other languages than English, written for the tests: two on films, two on purchases."""

SENTENCES = {
    "de": (
        "Der Film war wunderschön und hat mich von der ersten Minute an begeistert.",
        "Eine langweilige Geschichte mit schlechten Schauspielern, und viel zu lang.",
        "Ich würde dieses Gerät jederzeit wieder kaufen, die Verarbeitung ist hervorragend.",
        "Die Lieferung kam drei Wochen zu spät, und der Kundendienst antwortet nicht.",
    ),
    "fr": (
        "Ce film est une merveille, je l'ai adoré du début jusqu'à la fin.",
        "Une histoire ennuyeuse, des acteurs sans talent, et c'est bien trop long.",
        "Je rachèterais cet appareil sans hésiter, la qualité est excellente.",
        "La livraison a eu trois semaines de retard et le service client ne répond pas.",
    ),
    "pl": (
        "Wspaniały film, który wzruszył mnie od pierwszej do ostatniej minuty.",
        "Nudna historia, słabi aktorzy, a na dodatek wszystko trwa zdecydowanie za długo.",
        "Kupiłbym to urządzenie jeszcze raz, jakość wykonania jest znakomita.",
        "Przesyłka przyszła trzy tygodnie za późno, a obsługa klienta nie odpowiada.",
    ),
    "ru": (
        "Прекрасный фильм, который тронул меня с первой до последней минуты.",
        "Скучная история, плохие актёры, и всё это тянется слишком долго.",
        "Я бы купил этот прибор ещё раз, качество сборки отличное.",
        "Посылка пришла на три недели позже, а поддержка не отвечает.",
    ),
    "zh": (
        "这部电影非常精彩,从第一分钟到最后都打动了我。",
        "故事很无聊,演员很差,而且时间太长了。",
        "我会再次购买这个产品,做工质量非常好。",
        "快递晚了三个星期,客服也一直不回复。",
    ),
}
